"""Self-supervised pretraining and transfer for medical images, as MONAI bundles."""

__version__ = "0.1.0"
