"""Self-supervised methods, one file each, behind one protocol."""

from __future__ import annotations

from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod, parameter_groups
from monai_ssl_transfer.methods.dino import DINO, DINOHeadOptions, DINOSchedule
from monai_ssl_transfer.methods.moco import MoCoV2
from monai_ssl_transfer.methods.simclr import SimCLR

__all__ = ["DINO", "DINOHeadOptions", "DINOSchedule", "MoCoV2", "SSLMethod", "SampleKeys", "SimCLR", "parameter_groups"]
