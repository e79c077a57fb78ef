"""The queue of keys that MoCo contrasts with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KeyQueue(nn.Module):
    """The last `size` keys, first in, first out; starts with random unit vectors.

    It takes the place of lightly's memory bank inside of lightly's loss. Other than that one it is part of the state
    dict (an exact resume needs it), keeps every key when a batch wraps around the end, and is filled only by an
    explicit `enqueue`, after the loss.

    Args:
        size: number of keys K.
        dim: length of a key.
    """

    keys: Tensor
    enqueued: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.size = size
        self.register_buffer("keys", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.int64))

    def forward(self, output: Tensor, labels: Tensor | None = None, update: bool = False) -> tuple[Tensor, Tensor]:
        """Answer lightly's loss: the positives unchanged, and the negatives `(dim, K)` as they are at this moment.

        Args:
            output: `(B, dim)` positive keys.
            labels: unused, part of lightly's interface.
            update: unused; see `enqueue`.
        """
        return output, self.keys.clone().T

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys.

        Args:
            keys: `(N, dim)`, normalised; of more than K the last K are kept.
        """
        place = (self.enqueued + torch.arange(len(keys), device=keys.device)) % self.size
        self.keys.index_copy_(0, place[-self.size :], keys[-self.size :].to(self.keys.dtype))
        self.enqueued += len(keys)
