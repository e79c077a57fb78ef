"""Generated data that looks like the real thing, in the layouts of the real thing."""
