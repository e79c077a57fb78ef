"""MONAI Label with this package's bundles: the server's app, its data, its training, and what to label first."""
