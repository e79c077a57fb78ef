"""Studies: the tidy table of results, the statistics over real runs, and the report."""
