"""The order of an epoch as arithmetic: a keyed bijection of the slice numbers instead of a shuffled list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from monai_ssl_transfer.errors import DataError

_ROUNDS = 8
_LEAST_BITS = 8  # a smaller domain would leave too few permutations for a handful of slices
_WORD = (1 << 64) - 1


def _mixed(value: int) -> int:
    """SplitMix64's finaliser on one 64-bit word (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195)."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


def _mixed_array(values: np.ndarray) -> np.ndarray:
    """The finaliser's two multiplications on an array of 64-bit words (the round key has already been added)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class EpochOrder:
    """A shuffled order of ``range(n)`` that needs no memory: position -> index, in constant time for any position.

    An unbalanced Feistel network permutes the next power of two; numbers that fall outside ``range(n)`` are permuted
    again until they fall inside (cycle walking), which keeps it a bijection.
    Luby and Rackoff 1988 (https://doi.org/10.1137/0217022); Black and Rogaway 2002 (cycle walking).

    Args:
        n: number of items, at least 1.
        keys: one 64-bit key per round.
    """

    n: int
    keys: tuple[int, ...]

    def __len__(self) -> int:
        return self.n

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Indices at these positions.

        Args:
            positions: integers of any shape in ``range(n)``.

        Returns:
            int64 array of the same shape.

        Raises:
            IndexError: when a position is outside the epoch.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and (positions.min() < 0 or positions.max() >= self.n):
            raise IndexError(f"position outside an epoch of {self.n}")
        values = self._permuted(positions.astype(np.uint64).reshape(-1))
        outside = np.flatnonzero(values >= self.n)
        while outside.size:
            values[outside] = self._permuted(values[outside])
            outside = outside[values[outside] >= self.n]
        return values.astype(np.int64).reshape(positions.shape)

    def __getitem__(self, position: int) -> int:
        return int(self(np.array([position]))[0])

    def _permuted(self, values: np.ndarray) -> np.ndarray:
        bits = max(_LEAST_BITS, (self.n - 1).bit_length())
        low_bits = np.uint64(bits // 2)
        low_mask = np.uint64((1 << (bits // 2)) - 1)
        high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        low, high = values & low_mask, values >> low_bits
        for number, key in enumerate(self.keys):
            if number % 2:
                low = low ^ (_mixed_array(high + np.uint64(key)) & low_mask)
            else:
                high = high ^ (_mixed_array(low + np.uint64(key)) & high_mask)
        return (high << low_bits) | low


def epoch_order(n: int, seed: int, epoch: int) -> EpochOrder:
    """The order of one epoch.

    Args:
        n: number of items.
        seed: the run's seed.
        epoch: counted from 0; every epoch has its own order.

    Returns:
        A bijection of ``range(n)`` that depends on these three numbers alone.

    Raises:
        DataError: when there is nothing to order.
    """
    if n < 1:
        raise DataError(
            "There are no slices to train on; check that the store was ingested and the subset is not empty."
        )
    key = _mixed(_mixed(seed & _WORD) ^ (epoch & _WORD))
    keys = []
    for _ in range(_ROUNDS):
        key = _mixed(key)
        keys.append(key)
    return EpochOrder(n, tuple(keys))


class PositionedBatchSampler(Sampler[list[int]]):
    """Batches of epochs with a position that can be set; an exhausted epoch is followed by the next one.

    Args:
        batches: of an epoch.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self._epoch = 0
        self._batch = 0

    def set_position(self, epoch: int, batch: int) -> None:
        """Make the next iteration start at this batch of this epoch (both counted from 0)."""
        if not 0 <= batch <= len(self):
            raise IndexError(f"batch {batch} is outside an epoch of {len(self)} batches")
        self._epoch, self._batch = epoch, batch

    def batch_of_epoch(self, epoch: int, batch: int) -> list[int]:
        """This rank's part of one batch of an epoch."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = self._epoch, self._batch
        self._epoch, self._batch = epoch + 1, 0
        for batch in range(first, len(self)):
            yield self.batch_of_epoch(epoch, batch)


class ArithmeticBatchSampler(PositionedBatchSampler):
    """Batches of an epoch's order, with a position that can be set; nothing about the order is ever stored.

    ``batch_size`` is the *global* batch: each rank gets its contiguous ``batch_size / world_size`` part of every
    global batch, so the global order is the same for any number of ranks and of loader workers. The last, incomplete
    batch of an epoch is dropped; as every epoch has another order, no slice is left out for good. An exhausted epoch is
    followed by the next one. An epoch is a pass over the data unless ``shorten`` makes it less.

    Args:
        n: number of slices.
        batch_size: slices per optimizer step over all ranks.
        seed: the run's seed.
        rank: this process.
        world_size: number of processes.

    Raises:
        DataError: when the batch cannot be split over the ranks or is larger than the data.
    """

    def __init__(self, n: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise DataError(
                f"batch_size {batch_size} is the batch over all {world_size} processes and must be a multiple of "
                "their number; choose another --batch_size."
            )
        if n < batch_size:
            raise DataError(
                f"{n} slices do not fill one batch of {batch_size}; use a smaller --batch_size or more scans."
            )
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epochs_per_pass = 1
        super().__init__(n // batch_size)

    def shorten(self, batches: int) -> None:
        """Let an epoch have fewer batches than a pass over the data.

        A pass then has as many epochs as fit in, with different images each; the rest of a pass is left out.

        Raises:
            IndexError: when a pass has fewer batches.
        """
        if not 1 <= batches <= self.batches:
            raise IndexError(f"an epoch of {batches} batches cannot be had from a pass of {self.batches}")
        self.epochs_per_pass = self.n // self.batch_size // batches
        self.batches = batches

    def at(self, epoch: int, batch: int) -> list[int]:
        """This rank's part of one batch of a whole pass."""
        share = self.batch_size // self.world_size
        start = batch * self.batch_size + self.rank * share
        return epoch_order(self.n, self.seed, epoch)(np.arange(start, start + share)).tolist()

    def batch_of_epoch(self, epoch: int, batch: int) -> list[int]:
        """This rank's part of one batch of an epoch, which may be a part of a pass."""
        turn, part = divmod(epoch, self.epochs_per_pass)
        return self.at(turn, part * len(self) + batch)
