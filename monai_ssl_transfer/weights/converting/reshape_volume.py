"""An encoder of slices as the start of one of volumes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from monai_ssl_transfer.weights.converting.reshape import POSITION, REGISTERS, grid_of

State = dict[str, Tensor]


def inflate(state: Mapping[str, Tensor], depth: int | None = None) -> State:
    """Inflate a 2-D encoder to 3-D; the third dimension is the last one, as MONAI's images have it (H, W, D).

    Source: I3D (Carreira and Zisserman 2017, arXiv 1705.07750, section 2.1): a kernel is repeated along depth, as often
    as it is wide, and divided by that number, so that a volume that is the same in every slice gives what the slice
    gave. This holds where no kernel reaches over the first or last slice: there the padding with zeros takes part of
    the sum away. For a ViT it holds of the patch embedding; the class token then attends to as many copies of every
    patch as the grid is deep. Whether inflated weights help is not measured here.

    Args:
        state: canonical.
        depth: patches along the third dimension of a ViT's grid; None: as many as along the others. The position
            embedding is repeated over them.
    """
    inflated = {name: _inflate_kernel(tensor) if tensor.ndim == 4 else tensor for name, tensor in state.items()}
    if POSITION in state:
        inflated[POSITION] = _inflate_position(state, depth)
    return inflated


def _inflate_kernel(weight: Tensor) -> Tensor:
    width = weight.shape[-1]
    return (weight.unsqueeze(-1) / width).repeat(1, 1, 1, 1, width)


def _inflate_position(state: Mapping[str, Tensor], depth: int | None) -> Tensor:
    position, side = state[POSITION], grid_of(state)
    prefix = 0 if REGISTERS in state else 1
    grid = position[:, prefix:].unsqueeze(2).repeat(1, 1, side if depth is None else depth, 1)
    return torch.cat([position[:, :prefix], grid.flatten(1, 2)], dim=1)
