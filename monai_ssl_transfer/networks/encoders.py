"""The encoders that are pretrained: timm models without a head, under timm's and torchvision's own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
from torch import nn

PATCH_SIZE = 16


@dataclass(frozen=True)
class EncoderSpec:
    """What the rest of the package has to know about an encoder without building it.

    Args:
        timm_name: name of the model in timm.
        family: "resnet" or "vit".
        width: length of the embedding D.
        depth: number of transformer blocks (ViT) or of residual blocks (ResNet).
        heads: attention heads per block (ViT), 0 for ResNets.
    """

    timm_name: str
    family: str
    width: int
    depth: int
    heads: int = 0


SPECS: dict[str, EncoderSpec] = {
    "resnet18": EncoderSpec("resnet18", "resnet", 512, 8),
    "resnet50": EncoderSpec("resnet50", "resnet", 2048, 16),
    "vit_tiny": EncoderSpec("vit_tiny_patch16_224", "vit", 192, 12, 3),
    "vit_small": EncoderSpec("vit_small_patch16_224", "vit", 384, 12, 6),
    "vit_base": EncoderSpec("vit_base_patch16_224", "vit", 768, 12, 12),
}


def encoder_names() -> tuple[str, ...]:
    """Names that `build_encoder` understands."""
    return tuple(SPECS)


def encoder_spec(name: str) -> EncoderSpec:
    """The facts about one encoder.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    if name not in SPECS:
        raise ValueError(f"Unknown encoder {name!r}: choose one of {', '.join(SPECS)}.")
    return SPECS[name]


def build_encoder(name: str, in_channels: int = 3, image_size: int = 224, drop_path: float = 0.0) -> nn.Module:
    """Build an encoder with random weights.

    Its `state_dict` has the canonical names (those of torchvision's ResNets and timm's ViTs, no prefix) and holds no
    head; its `num_features` is D. The forward pass maps `(B, in_channels, H, W)` to `(B, D)`: the average over the
    last feature map (ResNet) or the normalised class token (ViT).

    Args:
        name: one of `encoder_names()`.
        in_channels: channels of the input.
        image_size: side in pixels for which a ViT's position embedding is made; a ViT accepts every other size that
            is a multiple of 16 and resamples the embedding. Ignored by ResNets.
        drop_path: stochastic depth rate (DINO trains its ViTs with 0.1).
    """
    spec = encoder_spec(name)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_channels, "drop_path_rate": drop_path}
    if spec.family == "vit":
        if image_size % PATCH_SIZE:
            raise ValueError(f"image_size {image_size} of {name} is not a multiple of {PATCH_SIZE}.")
        options |= {"img_size": image_size, "dynamic_img_size": True}
    return timm.create_model(spec.timm_name, pretrained=False, **options)
