"""The queue of keys that MoCo contrasts with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}


class KeyQueue(nn.Module):
    """The last `size` keys, first in, first out; starts with random unit vectors.

    It takes the place of lightly's memory bank inside of lightly's loss. Other than that one it is part of the state
    dict (an exact resume needs it), keeps every key when a batch wraps around the end, and is filled only by an
    explicit `enqueue`, after the step.

    Args:
        size: number of keys K.
        dim: length of a key.
        precision: "fp32", or "fp16" to store keys in half the memory, where a component is off by at most 0.05 %.

    Raises:
        TrainingError: for another precision, or a queue without keys.
    """

    keys: Tensor
    enqueued: Tensor

    def __init__(self, size: int, dim: int, precision: str = "fp32"):
        super().__init__()
        if precision not in PRECISIONS:
            raise TrainingError(f"queue_precision '{precision}' is unknown: choose fp32 or fp16.")
        if size < 1:
            raise TrainingError(f"queue_size {size} leaves nothing to contrast with: choose 1 or more.")
        self.size = size
        start = nn.functional.normalize(torch.randn(size, dim), dim=1)
        self.register_buffer("keys", start.to(PRECISIONS[precision]))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.int64))

    def forward(self, output: Tensor, labels: Tensor | None = None, update: bool = False) -> tuple[Tensor, Tensor]:
        """Answer lightly's loss: the positives unchanged, and the negatives `(dim, K)` in float32.

        The backward pass reads the negatives again, so `enqueue` may come only after it.

        Args:
            output: `(B, dim)` positive keys.
            labels: unused, part of lightly's interface.
            update: unused; see `enqueue`.
        """
        return output, self.keys.float().T

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys.

        Args:
            keys: `(N, dim)`, normalised; of more than K the last K are kept.
        """
        place = (self.enqueued + torch.arange(len(keys), device=keys.device)) % self.size
        self.keys.index_copy_(0, place[-self.size :], keys[-self.size :].to(self.keys.dtype))
        self.enqueued += len(keys)
