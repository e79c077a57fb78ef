"""Checkpoints of the world: opened without running anything, recognised, and the encoder in them found."""
