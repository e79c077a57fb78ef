"""Segmentation networks: MONAI's FlexibleUNet over any of our encoders."""

from __future__ import annotations

from monai.networks.nets import FlexibleUNet

from monai_ssl_transfer.networks.backbones import REGISTERED_PREFIX
from monai_ssl_transfer.networks.encoders import build_encoder, check_patch_size, encoder_spec

STOCK_BACKBONES = ("resnet50",)
"""Encoders whose weights MONAI's own backbone of the same name holds bit for bit."""


def build_unet(
    encoder: str,
    in_channels: int = 3,
    out_channels: int = 3,
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16),
    dropout: float = 0.0,
    image_size: int = 224,
) -> FlexibleUNet:
    """Build a 2-D FlexibleUNet whose encoder can hold a pretrained one exactly.

    For `resnet50` it is the stock network, the same as `FlexibleUNet(in_channels, out_channels, "resnet50")`, with the
    encoder under `encoder.`; for the others it has a registered backbone (`networks.backbones`), with the encoder
    under `encoder.encoder.`. Height and width of the input should be multiples of 32; a ViT needs multiples of 16.

    Args:
        encoder: one of `encoder_names()`.
        in_channels: channels of the input.
        out_channels: classes including the background; the output is `(B, out_channels, H, W)` logits.
        decoder_channels: channels of the five decoder stages, coarsest first.
        dropout: dropout rate in the decoder.
        image_size: side in pixels for which a ViT's position embedding is made: that of the pretraining, so that
            nothing is resampled twice. Ignored by ResNets.

    Raises:
        ValueError: for an unknown encoder, or a ViT whose patches are not 16 pixels.
    """
    spec = encoder_spec(encoder)
    check_patch_size(encoder, "A U-Net")
    backbone = encoder if encoder in STOCK_BACKBONES else REGISTERED_PREFIX + encoder
    network = FlexibleUNet(
        in_channels=in_channels,
        out_channels=out_channels,
        backbone=backbone,
        decoder_channels=tuple(decoder_channels),
        spatial_dims=2,
        dropout=dropout,
    )
    if spec.family == "vit":
        # FlexibleUNet passes no further arguments to a backbone.
        network.encoder.encoder = build_encoder(encoder, in_channels, image_size)
    return network
