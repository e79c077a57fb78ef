"""A finished run handed out: self-contained bundles that others load with MONAI alone."""
