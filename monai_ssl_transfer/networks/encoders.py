"""The encoders that are pretrained: timm models without a head, under timm's and torchvision's own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
from torch import nn

from monai_ssl_transfer.errors import NetworkError
from monai_ssl_transfer.networks.checkpointing import checkpoint_activations

POOLINGS = {"token": "token", "mean": "avg"}
"""Names of the poolings here and in timm."""


@dataclass(frozen=True)
class EncoderSpec:
    """What the rest of the package has to know about an encoder without building it.

    Args:
        timm_name: name of the model in timm.
        family: "resnet" or "vit".
        width: length of the embedding D.
        depth: number of transformer blocks (ViT) or of residual blocks (ResNet).
        heads: attention heads per block (ViT), 0 for ResNets.
        patch_size: side of a ViT's patches in pixels.
        registers: tokens of a ViT that belong to no patch, beside the class token (Darcet et al. 2024).
        layer_scale: whether the branches of a ViT's blocks have learnt gains (Touvron et al. 2021), as DINOv2's.
    """

    timm_name: str
    family: str
    width: int
    depth: int
    heads: int = 0
    patch_size: int = 16
    registers: int = 0
    layer_scale: bool = False

    @property
    def prefix_tokens(self) -> int:
        """Tokens before those of the patches: the class token and the registers."""
        return 1 + self.registers

    @property
    def prefix_positions(self) -> int:
        """Entries of the position embedding before those of the patches: timm has none where there are registers."""
        return 0 if self.registers else 1


# MoCo v3's authors gave their ViT-S 12 attention heads; timm's and DINO's has 6, with tensors of the same shapes.
SPECS: dict[str, EncoderSpec] = {
    "resnet18": EncoderSpec("resnet18", "resnet", 512, 8),
    "resnet50": EncoderSpec("resnet50", "resnet", 2048, 16),
    "vit_tiny": EncoderSpec("vit_tiny_patch16_224", "vit", 192, 12, 3),
    "vit_small": EncoderSpec("vit_small_patch16_224", "vit", 384, 12, 6),
    "vit_base": EncoderSpec("vit_base_patch16_224", "vit", 768, 12, 12),
    "vit_small_moco_v3": EncoderSpec("vit_small_patch16_224", "vit", 384, 12, 12),
    "vit_small_dinov2": EncoderSpec("vit_small_patch14_dinov2", "vit", 384, 12, 6, 14, 0, True),
    "vit_base_dinov2": EncoderSpec("vit_base_patch14_dinov2", "vit", 768, 12, 12, 14, 0, True),
    "vit_small_dinov2_reg": EncoderSpec("vit_small_patch14_reg4_dinov2", "vit", 384, 12, 6, 14, 4, True),
    "vit_base_dinov2_reg": EncoderSpec("vit_base_patch14_reg4_dinov2", "vit", 768, 12, 12, 14, 4, True),
}


def encoder_names() -> tuple[str, ...]:
    """Names that `build_encoder` understands."""
    return tuple(SPECS)


def encoder_spec(name: str) -> EncoderSpec:
    """The facts about one encoder.

    Raises:
        NetworkError: if the name is unknown; the message lists the known ones.
    """
    if name not in SPECS:
        raise NetworkError(f"Unknown encoder {name!r}: choose one of {', '.join(SPECS)}.")
    return SPECS[name]


def check_patch_size(name: str, network: str) -> None:
    """Refuse an encoder whose strides do not halve down to that of its patches.

    Args:
        name: one of `encoder_names()`.
        network: what needs patches of 16 pixels, for the message.

    Raises:
        NetworkError: for patches of another size.
    """
    if (size := encoder_spec(name).patch_size) != 16:
        raise NetworkError(
            f"{network} needs maps of strides 4, 8, 16 and 32, which patches of {size} pixels do not give: choose "
            f'another encoder than {name}, or the decoder "linear" or "dpt" of build_dense.'
        )


def build_encoder(
    name: str,
    in_channels: int = 3,
    image_size: int = 224,
    drop_path: float = 0.0,
    pooling: str = "token",
    activation_checkpointing: bool = False,
) -> nn.Module:
    """Build an encoder with random weights.

    Its `state_dict` has the canonical names (those of torchvision's ResNets and timm's ViTs, no prefix) and holds no
    head; its `num_features` is D. The forward pass maps `(B, in_channels, H, W)` to `(B, D)`: the average over the
    last feature map (ResNet), the normalised class token or the average of the normalised patch tokens (ViT).

    Args:
        name: one of `encoder_names()`.
        in_channels: channels of the input.
        image_size: side in pixels for which a ViT's position embedding is made; a ViT accepts every other size that
            is a multiple of its patch and resamples the embedding. Ignored by ResNets.
        drop_path: stochastic depth rate (DINO trains its ViTs with 0.1).
        pooling: what of a ViT is the embedding: "token", its class token, or "mean", the average of its patch tokens,
            which is better where the class token was not trained (MAE). ResNets always average.
        activation_checkpointing: whether training forgets the activations within the blocks and computes them again in
            the backward pass, which saves memory and costs about a third more time.

    Raises:
        NetworkError: for an unknown encoder or pooling, or an image_size that is no multiple of a ViT's patch.
    """
    spec = encoder_spec(name)
    if pooling not in POOLINGS:
        raise NetworkError(f"Unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}.")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": in_channels, "drop_path_rate": drop_path}
    if spec.family == "vit":
        if image_size % spec.patch_size:
            raise NetworkError(f"image_size {image_size} of {name} is not a multiple of {spec.patch_size}.")
        # fc_norm=False: the tokens are normalised before they are averaged, under the same name as the class token.
        options |= {"img_size": image_size, "dynamic_img_size": True, "fc_norm": False, "num_heads": spec.heads}
        options["global_pool"] = POOLINGS[pooling]
    encoder = timm.create_model(spec.timm_name, pretrained=False, **options)
    if activation_checkpointing:
        checkpoint_activations(encoder)
    return encoder


def pooling_of(encoder: Any) -> str:
    """What the embedding of an encoder of `build_encoder` is, "token" or "mean"; of a ResNet "token", as it says none.

    Args:
        encoder: an encoder of `build_encoder`.
    """
    return "mean" if getattr(encoder, "pos_embed", None) is not None and encoder.global_pool == "avg" else "token"


def mark_loaded(encoder: Any) -> None:
    """Note on an encoder that its weights came from a file, so that nothing initialises any of them anew."""
    encoder.weights_are_loaded = True


def is_loaded(encoder: nn.Module) -> bool:
    """Whether an encoder's weights came from a file."""
    return bool(getattr(encoder, "weights_are_loaded", False))
