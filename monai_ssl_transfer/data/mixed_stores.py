"""Several stores in fixed shares of every batch, for example natural photographs beside in-domain images.

RadNet's mixed pretraining (Jonske et al. 2025, IxRM: ImageNet and radiological images together, against one after the
other, IxRS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from monai_ssl_transfer.data.order import ArithmeticBatchSampler, PositionedBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, collate_slices
from monai_ssl_transfer.errors import DataError

VISIT = 1_000_000_000
"""An image's number counts on over all stores; its key is that plus this times the visit within the epoch."""


class MixedStores:
    """What a fingerprint, a card or a choice by size asks of a store, for several of them.

    Args:
        parts: ``SliceStore`` objects, the main one first.
        shares: of every batch, one per store; they add up to 1.
    """

    def __init__(self, parts: Sequence[Any], shares: Sequence[float]) -> None:
        self.parts = tuple(parts)
        self.shares = tuple(float(share) for share in shares)
        _check_shares(self.shares, len(self.parts))

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def content_hash(self) -> str:
        """Changes with the content of any store, their order and their shares."""
        text = ",".join(f"{part.content_hash}:{share!r}" for part, share in zip(self.parts, self.shares, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()


class MixedDataset(Dataset):
    """The images of several stores, numbered through; each item knows which store it is from.

    Args:
        parts: one ``SliceDataset`` per store, in the stores' order.
    """

    def __init__(self, parts: Sequence[SliceDataset]) -> None:
        self.parts = tuple(parts)
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: int) -> dict[str, Any]:
        """One image.

        Args:
            key: as ``MixedBatchSampler`` gives it.

        Returns:
            What ``SliceDataset`` gives, and ``"part"``, ``"key"`` and ``"visit"``.
        """
        visit, number = divmod(int(key), VISIT)
        part, place = self._place(number)
        return {**self.parts[part][place], "part": part, "key": int(key), "visit": visit}

    def place_of(self, key: int) -> str:
        """Where an image is, for messages.

        Args:
            key: as ``MixedBatchSampler`` gives it.
        """
        part, place = self._place(int(key) % VISIT)
        return f"{place} of store {part + 1}"

    def _place(self, number: int) -> tuple[int, int]:
        """Store and place in it of an image that is numbered over all stores."""
        part = int(np.searchsorted(self.ends, number, side="right"))
        return part, number - int(self.ends[part]) + len(self.parts[part])

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """One batch, by store.

        Args:
            items: of every store at least one, mixed as ``mixing_order`` has it.

        Returns:
            ``"image"``, ``"size"`` and ``"index"``: a list with one tensor per store, as ``collate_slices`` makes them
            (``"index"`` has the visit added, so that views differ between visits); ``"key"``: (B,) int64, one number
            per image over all stores, in the order of the batch.
        """
        batch: dict[str, Any] = {"image": [], "size": [], "index": []}
        for number in range(len(self.parts)):
            own = [item for item in items if item["part"] == number]
            collated = collate_slices([{**item, "index": item["index"] + item["visit"] * VISIT} for item in own])
            for name, values in batch.items():
                values.append(collated[name])
        return {**batch, "key": torch.tensor([item["key"] for item in items], dtype=torch.int64)}


class MixedBatchSampler(PositionedBatchSampler):
    """Batches that hold a fixed share of every store, spread evenly; with a position that can be set.

    Every store has an ``ArithmeticBatchSampler`` of its own, and goes on to its next pass when it is used up. An epoch
    is one pass over the store that lasts longest at its share; the others are visited several times in it.

    Args:
        dataset: gives the sizes of the stores.
        shares: of every batch, one per store; they add up to 1.
        batch_size: images per optimizer step over all ranks.
        seed: the run's seed; the stores' orders differ.
        rank: this process.
        world_size: number of processes; each gets the same number of images of every store.

    Raises:
        DataError: when a share is no number of images, or cannot be split over the ranks, or a store is too small.
    """

    def __init__(
        self,
        dataset: MixedDataset,
        shares: Sequence[float],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_shares(shares, len(dataset.parts))
        self.batch_size = batch_size
        self.counts = _counts(shares, batch_size, world_size)
        self.parts = [
            ArithmeticBatchSampler(len(part), count, seed + number, rank, world_size)
            for number, (part, count) in enumerate(zip(dataset.parts, self.counts, strict=True))
        ]
        self.starts = [0, *dataset.ends[:-1].tolist()]
        self.order = mixing_order([count // world_size for count in self.counts])
        super().__init__(max(len(part) for part in self.parts))

    def shorten(self, batches: int) -> None:
        """Let an epoch have fewer batches; the stores then go on in the next one.

        Raises:
            IndexError: when an epoch has fewer batches.
        """
        if not 1 <= batches <= self.batches:
            raise IndexError(f"an epoch of {batches} batches cannot be had from one of {self.batches}")
        self.batches = batches

    def batch_of_epoch(self, epoch: int, batch: int) -> list[int]:
        """This rank's part of one batch, as keys."""
        begun = epoch * len(self)
        keys: list[int] = []
        for start, part in zip(self.starts, self.parts, strict=True):
            turn, place = divmod(begun + batch, len(part))
            added = start + VISIT * (turn - begun // len(part))
            keys += [number + added for number in part.at(turn, place)]
        return [keys[place] for place in self.order]


def mixing_order(counts: Sequence[int]) -> list[int]:
    """How images of several stores are spread over a batch, so that every piece of it has its share of all of them.

    Args:
        counts: images of each store.

    Returns:
        Positions in the images of all stores one after the other, in the order of the batch.
    """
    places = [(place + 0.5) / count for count in counts for place in range(count)]
    return sorted(range(len(places)), key=lambda position: places[position])


def _check_shares(shares: Sequence[float], parts: int) -> None:
    if len(shares) != parts or abs(sum(shares) - 1) > 1e-6 or min(shares) <= 0:
        raise DataError(
            f"The shares {list(shares)} of {parts} stores must each be above 0 and add up to 1; choose other shares "
            "(--second_share)."
        )


def _counts(shares: Sequence[float], batch_size: int, world_size: int) -> list[int]:
    """Images of each store per batch; what rounding leaves goes to the first one."""
    others = [round(share * batch_size) for share in shares[1:]]
    counts = [batch_size - sum(others), *others]
    if min(counts) < 1 or any(count % world_size for count in counts):
        raise DataError(
            f"Shares of {', '.join(f'{share:g}' for share in shares)} put {', '.join(map(str, counts))} images of the "
            f"stores into a batch of {batch_size}; each must be above 0 and a multiple of {world_size} (processes): "
            "choose another --second_share or --batch_size."
        )
    return counts
