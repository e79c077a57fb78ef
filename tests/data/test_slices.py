from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, collate_slices, slice_loader
from monai_ssl_transfer.errors import DataError


class _Store:
    """Two series of three slices with different sizes; every slice is filled with its own number."""

    def __len__(self) -> int:
        return 6

    def read(self, number: int) -> np.ndarray:
        shape = (4, 6) if number < 3 else (5, 3)
        return np.full(shape, number * 100, dtype=np.int16)

    def neighbours(self, number: int) -> tuple[int, int]:
        first = number // 3 * 3
        return max(number - 1, first), min(number + 1, first + 2)


def test_channels() -> None:
    single = SliceDataset(_Store(), "single")[4]
    assert single["index"] == 4
    assert single["image"].shape == (1, 5, 3)
    assert single["image"].dtype == torch.int16
    assert [int(channel[0, 0]) for channel in SliceDataset(_Store(), "neighbours")[1]["image"]] == [0, 100, 200]
    assert [int(channel[0, 0]) for channel in SliceDataset(_Store(), "neighbours")[3]["image"]] == [300, 300, 400]
    with pytest.raises(DataError, match="windows"):
        SliceDataset(_Store(), "colours")


def test_subset_keeps_store_numbers() -> None:
    dataset = SliceDataset(_Store(), subset=[5, 1])
    assert len(dataset) == 2
    assert dataset[0]["index"] == 5
    assert int(dataset[0]["image"][0, 0, 0]) == 500
    with pytest.raises(DataError, match="outside"):
        SliceDataset(_Store(), subset=[6])


def test_collate_pads_with_air() -> None:
    dataset = SliceDataset(_Store())
    batch = collate_slices([dataset[0], dataset[5]])
    assert batch["image"].shape == (2, 1, 5, 6)
    assert batch["size"].tolist() == [[4, 6], [5, 3]]
    assert batch["index"].tolist() == [0, 5]
    assert (batch["image"][0, 0, :4, :6] == 0).all()
    assert (batch["image"][0, 0, 4:] == -1024).all()
    assert (batch["image"][1, 0, :5, :3] == 500).all()
    assert (batch["image"][1, 0, :, 3:] == -1024).all()


def test_loader_gives_the_same_for_any_number_of_workers() -> None:
    state = torch.get_rng_state()
    seen = []
    for workers in (0, 2):
        loader = slice_loader(SliceDataset(_Store()), ArithmeticBatchSampler(6, 2, seed=1), workers)
        seen.append([batch["index"].tolist() for _ in range(2) for batch in loader])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 6
    assert torch.equal(state, torch.get_rng_state())
