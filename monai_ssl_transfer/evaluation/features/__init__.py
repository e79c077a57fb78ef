"""What an encoder's features are like, before anything is trained on them."""
