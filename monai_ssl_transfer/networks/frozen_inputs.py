"""The two parts at a ViT's entrance that some methods do not train: position embedding and patch projection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_ssl_transfer.networks.encoders import is_loaded

TEMPERATURE = 10_000.0


def fix_position_embedding(encoder: nn.Module) -> None:
    """Set a ViT's position embedding to the fixed two-dimensional sine-cosine one and freeze it.

    As in MAE (He et al. 2022, appendix A.1) and MoCo v3 (Chen et al. 2021, section 5). An embedding that came from a
    file is frozen as it is: the rest of the encoder was trained with it.

    Args:
        encoder: a ViT of `build_encoder`.

    Raises:
        ValueError: for a ResNet.
    """
    vit = _vit(encoder)
    if not is_loaded(vit):
        rows, columns = vit.patch_embed.grid_size
        patches = sine_cosine_positions(rows, columns, vit.pos_embed.shape[2])
        with torch.no_grad():
            # A class token, where the embedding has a place for it, is at 0.
            vit.pos_embed.zero_()
            vit.pos_embed[0, -len(patches) :] = patches
    vit.pos_embed.requires_grad_(False)


def freeze_patch_projection(encoder: nn.Module) -> None:
    """Freeze a ViT's patch projection, random or loaded, which steadies training (MoCo v3, section 4.2).

    A random one is first drawn as in MoCo v3's code: uniformly within sqrt(6 / (inputs + outputs)), bias 0.

    Args:
        encoder: a ViT of `build_encoder`.

    Raises:
        ValueError: for a ResNet.
    """
    vit = _vit(encoder)
    projection = vit.patch_embed.proj
    if not is_loaded(vit):
        # As a linear layer: for the convolution itself, PyTorch's xavier_uniform_ takes the patch size into `outputs`.
        nn.init.xavier_uniform_(projection.weight.data.flatten(1))
        nn.init.zeros_(projection.bias)
    projection.requires_grad_(False)


def sine_cosine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Position embedding of a grid: sines and cosines of the column, then those of the row, as in MAE.

    Frequencies fall from 1 to almost 1 / 10000 per patch (Vaswani et al. 2017, section 3.5, for each direction).
    timm's `build_sincos2d_pos_embed` has the same numbers in another order of channels than MAE's released weights.

    Args:
        rows: of the grid.
        columns: of the grid.
        width: length D of an embedding, a multiple of 4.

    Returns:
        `(rows * columns, D)` float32, row by row.
    """
    frequencies = TEMPERATURE ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (column, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()


def _vit(encoder: nn.Module) -> Any:
    if getattr(encoder, "pos_embed", None) is None:
        raise ValueError(f"A {type(encoder).__name__} has no position embedding and no patches: choose a ViT.")
    return encoder
