"""Random numbers by arithmetic: Philox4x32-10, a counter-based generator, in torch int64.

A number depends on (seed, epoch, sample, view, position) alone. There is no state to save, nothing depends on the
batch, the worker or the rank, and CPU and CUDA give the same bits.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ssl_transfer.errors import TrainingError

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORDS = 4


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10 block function.

    Args:
        counter: four int64 tensors that broadcast together, each holding 32-bit words.
        key: two 32-bit words.

    Returns:
        Four int64 tensors of 32-bit random words.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product of two 32-bit words wraps around in int64, but its bits are those of the unsigned product.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_words(seed: int, epoch: int, sample: Tensor, view: int | Tensor, count: int) -> Tensor:
    """32-bit random words of samples and views.

    Args:
        seed: any integer; its low 64 bits are the key.
        epoch: 0 to 2**32 - 1.
        sample: int64 sample numbers of any shape, not negative.
        view: view number(s) that broadcast with `sample`, 0 to 65535.
        count: how many words for each sample and view, at most 262144.

    Returns:
        int64 (*broadcast shape, count), each 0 to 2**32 - 1.

    Raises:
        TrainingError: when a number is out of its range.
    """
    blocks = -(-count // _WORDS)
    if not 0 <= epoch <= _MASK or blocks > 1 << 16:
        raise TrainingError(
            f"epoch {epoch} or count {count} is too large for the random generator: use less than 2**32."
        )
    sample = sample.to(torch.int64).unsqueeze(-1)
    view = torch.as_tensor(view, dtype=torch.int64, device=sample.device).unsqueeze(-1)
    block = torch.arange(blocks, dtype=torch.int64, device=sample.device)
    counter = (sample & _MASK, (sample >> 32) & _MASK, torch.full_like(block, epoch), (view << 16) | block)
    words = torch.stack(philox(counter, (seed & _MASK, (seed >> 32) & _MASK)), dim=-1)
    return words.flatten(-2)[..., :count]


def uniform(seed: int, epoch: int, sample: Tensor, view: int | Tensor, count: int) -> Tensor:
    """Uniform random numbers in [0, 1) of samples and views.

    Args:
        seed: any integer; its low 64 bits are the key.
        epoch: 0 to 2**32 - 1.
        sample: int64 sample numbers, (B,) or any shape.
        view: view number(s) that broadcast with `sample`.
        count: how many numbers for each sample and view.

    Returns:
        float32 (B, count): multiples of 2**-24, exact on every device.
    """
    return (random_words(seed, epoch, sample, view, count) >> 8).to(torch.float32) * 2.0**-24
