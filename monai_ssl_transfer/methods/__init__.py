"""Self-supervised methods, one file each, behind one protocol."""

from __future__ import annotations

from monai_ssl_transfer.methods.base import SSLMethod, parameter_groups
from monai_ssl_transfer.methods.simclr import SimCLR

__all__ = ["SSLMethod", "SimCLR", "parameter_groups"]
