"""Names of an evaluation's files that others read; without MONAI, since reading a study's results must stay light."""

JUDGED_FILE = "judged.csv"
"""What every test case gained of what it could, as `robustness_grid.write_cases` writes it."""
DRAWS = "draws"
"""Folder with a folder of figures for every draw of a probe."""
