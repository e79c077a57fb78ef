"""Self-supervised methods, one file each, behind one protocol."""

from __future__ import annotations

from monai_ssl_transfer.methods.barlow_twins import BarlowTwins
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod
from monai_ssl_transfer.methods.dino import DINO, DINOHeadOptions, DINOSchedule
from monai_ssl_transfer.methods.dinov2 import DINOv2
from monai_ssl_transfer.methods.mae import MAE, MAEDecoderOptions
from monai_ssl_transfer.methods.masks import BlockMasking
from monai_ssl_transfer.methods.moco import MoCoV2
from monai_ssl_transfer.methods.moco_v3 import MoCoV3
from monai_ssl_transfer.methods.parameters import parameter_groups
from monai_ssl_transfer.methods.simclr import SimCLR

__all__ = [
    "DINO",
    "MAE",
    "BarlowTwins",
    "BlockMasking",
    "DINOHeadOptions",
    "DINOSchedule",
    "DINOv2",
    "MAEDecoderOptions",
    "MoCoV2",
    "MoCoV3",
    "SSLMethod",
    "SampleKeys",
    "SimCLR",
    "parameter_groups",
]
