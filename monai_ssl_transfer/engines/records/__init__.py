"""What a run leaves in its folder, and tables of it."""
