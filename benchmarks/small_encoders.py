"""Encoders small enough to learn something in half a minute on one core; the same interface as `build_encoder`'s."""

from __future__ import annotations

from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def small_resnet(in_channels: int = 3) -> nn.Module:
    """A ResNet of four basic blocks, 32 to 256 channels wide (1.2 M parameters): `(B, C, H, W)` to `(B, 256)`."""
    return ResNet(
        BasicBlock,
        (1, 1, 1, 1),
        num_classes=0,
        in_chans=in_channels,
        channels=(32, 64, 128, 256),
        stem_type="deep",
        stem_width=16,
    )


def small_vit(in_channels: int = 3, image_size: int = 48, pooling: str = "token") -> nn.Module:
    """A ViT of four blocks of width 128 with patches of 8 pixels (0.8 M parameters): `(B, C, H, W)` to `(B, 128)`.

    Args:
        in_channels: channels of the input.
        image_size: side in pixels, a multiple of 8.
        pooling: "token" (the class token) or "mean" (of the patch tokens).
    """
    return VisionTransformer(
        img_size=image_size,
        patch_size=8,
        in_chans=in_channels,
        num_classes=0,
        global_pool="avg" if pooling == "mean" else "token",
        embed_dim=128,
        depth=4,
        num_heads=4,
        fc_norm=False,  # as in build_encoder: the tokens are normalised before they are averaged
        dynamic_img_size=True,
    )
