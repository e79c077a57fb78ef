"""Scores of frozen embeddings that order candidate encoders without training any of them."""
