"""Encoders, decoders and heads; the encoders are timm's, the decoders MONAI's."""

from __future__ import annotations

from monai_ssl_transfer.networks.classification import build_classifier
from monai_ssl_transfer.networks.encoders import build_encoder, encoder_names
from monai_ssl_transfer.networks.segmentation import build_unet

__all__ = ["build_classifier", "build_encoder", "build_unet", "encoder_names"]
