"""A ViT in steps, for methods that hide or drop tokens on the way, which timm's forward pass has no place for.

Image sizes other than the encoder's, register tokens, LayerScale, stochastic depth and activation checkpointing work
as they do in timm. lightly's MaskedVisionTransformerTIMM also does this, but it wants square views, gives a pretrained
encoder new weights unless told otherwise and keeps a checkpointing flag of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError


def require_vit(method: str, encoder: nn.Module) -> Any:
    """The encoder, if it is a ViT that takes any image size.

    Args:
        method: name for the message.
        encoder: what was asked for.

    Raises:
        TrainingError: for another encoder.
    """
    if not isinstance(encoder, VisionTransformer) or not encoder.dynamic_img_size or not encoder.has_class_token:
        raise TrainingError(
            f"{method} hides patches, which a {type(encoder).__name__} does not have: "
            "choose a ViT (--encoder_name vit_small, for example) or another method."
        )
    return encoder


def patch_grid(vit: Any, views: Tensor) -> tuple[int, int]:
    """Rows and columns of patches of `(B, C, H, W)`.

    Raises:
        TrainingError: if the size is no multiple of the patch.
    """
    height, width = vit.patch_embed.patch_size
    if views.shape[2] % height or views.shape[3] % width:
        raise TrainingError(
            f"Views of {views.shape[2]} x {views.shape[3]} pixels are not whole patches of {height} x {width}: "
            "choose another --image_size."
        )
    return views.shape[2] // height, views.shape[3] // width


def embed_patches(vit: Any, views: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
    """Tokens before the first block: class and register tokens, then the patches, all with their positions.

    Args:
        vit: the encoder.
        views: `(B, C, H, W)`.
        hidden: `(B, rows, columns)` bool, patches that `mask_token` takes the place of before positions are added.
        mask_token: `(1, D)`.

    Returns:
        `(B, vit.num_prefix_tokens + patches, D)`.
    """
    patches = vit.patch_embed(views)
    if hidden is not None and mask_token is not None:
        patches = torch.where(hidden[..., None], mask_token.to(patches.dtype), patches)
    return vit._pos_embed(patches)


def through_blocks(vit: Any, tokens: Tensor) -> Tensor:
    """Normalised tokens after the last block, `(B, T, D)` from `(B, T, D)`, whichever tokens there are."""
    tokens = vit.norm_pre(tokens)
    tokens = checkpoint_seq(vit.blocks, tokens) if vit.grad_checkpointing else vit.blocks(tokens)
    return vit.norm(tokens)
