"""A study before its runs: its YAML file, its cells, what they cost, and what they can find."""
