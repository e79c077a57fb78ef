"""Checkpoints of runs: exact resume, files that are whole or not there, and what a run is recognised by."""
