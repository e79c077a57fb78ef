"""Encoders, decoders and heads; the encoders are timm's, the decoders MONAI's, torchvision's and a few of our own."""

from __future__ import annotations

from monai_ssl_transfer.networks.classification import build_classifier, build_projected_classifier
from monai_ssl_transfer.networks.dense import build_dense
from monai_ssl_transfer.networks.detection import build_detector
from monai_ssl_transfer.networks.encoders import build_encoder, encoder_names
from monai_ssl_transfer.networks.frozen_inputs import fix_position_embedding, freeze_patch_projection
from monai_ssl_transfer.networks.last_blocks import build_last_blocks_classifier
from monai_ssl_transfer.networks.segmentation import build_unet

__all__ = [
    "build_classifier",
    "build_dense",
    "build_detector",
    "build_encoder",
    "build_last_blocks_classifier",
    "build_projected_classifier",
    "build_unet",
    "encoder_names",
    "fix_position_embedding",
    "freeze_patch_projection",
]
