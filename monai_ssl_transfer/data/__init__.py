"""Pixels in: reading scans, the slice store, public layouts, grouped splits, generated phantoms."""
