"""What runs with real seeds and paired cases say, and how sure that is."""
