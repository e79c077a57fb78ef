"""A linear layer on the tokens of a ViT's last blocks, as DINO and DINOv2 evaluate encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_ssl_transfer.networks.classification import EncoderClassifier
from monai_ssl_transfer.networks.encoders import build_encoder, encoder_spec


class LastBlocksClassifier(EncoderClassifier):
    """A ViT and a linear layer on the tokens of its last blocks: DINO's and DINOv2's linear evaluation.

    The class tokens of the last blocks, each through the encoder's last norm, are put side by side, with the average
    of the last block's patch tokens if wanted (Caron et al. 2021, appendix F.2; Oquab et al. 2024, appendix B.3).

    Args:
        encoder: a ViT of `encoder_names()`.
        in_channels: channels of the input.
        classes: number of logits.
        image_size: side of the input in pixels for which the position embedding is made.
        last_blocks: how many blocks.
        average_patches: whether the average is there too.
    """

    def __init__(
        self, encoder: str, in_channels: int, classes: int, image_size: int, last_blocks: int, average_patches: bool
    ):
        spec = encoder_spec(encoder)
        parts = last_blocks + int(average_patches)
        super().__init__(build_encoder(encoder, in_channels, image_size), parts * spec.width, classes)
        self.prefix_tokens = spec.prefix_tokens
        self.first = spec.depth - last_blocks
        self.average_patches = average_patches
        nn.init.normal_(self.classification_head.weight, std=0.01)  # as DINO and DINOv2 start it
        nn.init.zeros_(self.classification_head.bias)

    def features(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to what the linear layer sees, `(B, parts * D)`, the last block's class token last."""
        tokens = self.encoder.norm_pre(self.encoder.patch_drop(self.encoder._pos_embed(self.encoder.patch_embed(x))))
        parts: list[Tensor] = []
        for number, block in enumerate(self.encoder.blocks):
            tokens = block(tokens)
            if number >= self.first:
                parts.append(self.encoder.norm(tokens)[:, 0])
        if self.average_patches:
            parts.append(self.encoder.norm(tokens)[:, self.prefix_tokens :].mean(dim=1))
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, classes)` logits."""
        return self.classification_head(self.features(x))


def build_last_blocks_classifier(
    encoder: str,
    in_channels: int = 3,
    classes: int = 2,
    image_size: int = 224,
    last_blocks: int = 4,
    average_patches: bool = False,
) -> nn.Module:
    """Build a classifier on the tokens of a ViT's last blocks; frozen (`protocols/frozen`) it is a linear evaluation.

    Args:
        encoder: a ViT of `encoder_names()`.
        in_channels: channels of the input.
        classes: number of logits.
        image_size: side of the input in pixels for which the position embedding is made.
        last_blocks: class tokens of how many blocks, counted from the last one.
        average_patches: whether the average of the last block's patch tokens is beside them.

    Raises:
        ValueError: for a ResNet, or more blocks than the encoder has.
    """
    spec = encoder_spec(encoder)
    if spec.family != "vit":
        raise ValueError(f"{encoder} has no blocks with a class token: choose a ViT, or build_classifier.")
    if not 1 <= last_blocks <= spec.depth:
        raise ValueError(f"last_blocks {last_blocks} of {encoder}: give 1 to {spec.depth}.")
    return LastBlocksClassifier(encoder, in_channels, classes, image_size, last_blocks, average_patches)
