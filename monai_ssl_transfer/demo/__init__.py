"""``make demo``: the main job on generated data, from scans to a table and one HTML page."""
