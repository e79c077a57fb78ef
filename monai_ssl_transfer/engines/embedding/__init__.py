"""Embeddings of whole images by an encoder in a file, and the table that they are kept in."""
