"""Collecting embeddings from all processes, so that a loss is the same however a batch is split."""

from __future__ import annotations

import torch
from lightly.utils import dist
from torch import Tensor


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate `(B, D)` of all ranks, in rank order, to `(world * B, D)`; gradients flow back to every rank.

    When each rank computes the same loss from the result, the mean of the ranks' gradients (what DDP forms) is the
    gradient of one process with the whole batch. Without processes the input itself is returned.
    """
    if dist.world_size() == 1:
        return x
    return torch.cat(dist.gather(x.contiguous()))


@torch.no_grad()
def gather_detached(x: Tensor) -> Tensor:
    """Concatenate `(B, D)` of all ranks, in rank order, without gradient."""
    return gather_with_gradient(x.detach())
