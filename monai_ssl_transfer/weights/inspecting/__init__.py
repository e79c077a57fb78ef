"""What a file of weights is and holds, for people and programs."""
