"""The report of a study: the answer first, then everything that it rests on."""
