from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_ssl_transfer.data.mixed_stores import VISIT, MixedBatchSampler, MixedDataset, MixedStores, mixing_order
from monai_ssl_transfer.data.slices import SliceDataset, slice_loader
from monai_ssl_transfer.engines.pretraining.nonfinite import FiniteGuard
from monai_ssl_transfer.errors import DataError, TrainingError


class Store:
    """Pictures whose pixels are their number."""

    pixels = "hu"

    def __init__(self, count: int, first: int, side: int = 4) -> None:
        self.count, self.first, self.side = count, first, side
        self.content_hash = f"{count}-{first}"

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> np.ndarray:
        return np.full((self.side, self.side), self.first + number, np.int16)


def mixed(counts: tuple[int, ...] = (40, 9)) -> MixedDataset:
    return MixedDataset([SliceDataset(Store(count, 1000 * i, 4 + i), "single") for i, count in enumerate(counts)])


def sampler(dataset: MixedDataset | None = None, **changes: int) -> MixedBatchSampler:
    return MixedBatchSampler(dataset or mixed(), (0.75, 0.25), 8, seed=3, **changes)


def test_every_batch_has_its_shares_and_stores_go_on_to_their_next_pass() -> None:
    batches = [batch for one in [sampler()] for _ in range(2) for batch in one]
    assert len(batches) == 2 * 6  # 40 // 6 of the first store, 9 // 2 = 4 of the second
    numbers = np.array(batches) % VISIT
    assert ((numbers >= 40).sum(axis=1) == 2).all()
    second = numbers[numbers >= 40] - 40
    for start in range(0, 24, 8):  # each pass of four batches sees no image twice
        assert len(set(second[start : start + 8].tolist())) == 8
    assert not np.array_equal(second[:8], second[8:16])
    first = numbers[numbers < 40]
    assert all(len(set(part.tolist())) == 36 for part in np.split(first, 2))


def test_visits_within_an_epoch_are_told_apart() -> None:
    epoch = np.array(list(sampler()))
    visits, numbers = np.divmod(epoch, VISIT)
    assert (visits[numbers < 40] == 0).all()
    assert visits[numbers >= 40].tolist() == [0] * 8 + [1] * 4
    assert len(set(epoch.flat)) == epoch.size


def test_position_can_be_set() -> None:
    one = sampler()
    whole = [list(one) for _ in range(3)]
    one.set_position(1, 4)
    assert list(one) == whole[1][4:] and list(one) == whole[2]
    with pytest.raises(IndexError):
        one.set_position(0, 7)


def test_a_short_epoch_leaves_nothing_out() -> None:
    short, whole = sampler(), sampler()
    short.shorten(3)
    pairs = np.array([[batch for _ in range(2) for batch in short], list(whole)]) % VISIT
    assert np.array_equal(pairs[0], pairs[1])
    with pytest.raises(IndexError):
        short.shorten(4)


def test_ranks_share_the_same_global_batches() -> None:
    alone = [set(batch) for batch in sampler()]
    parts = [list(sampler(rank=rank, world_size=2)) for rank in range(2)]
    assert [set(first) | set(second) for first, second in zip(*parts, strict=True)] == alone
    assert all(sum(key % VISIT >= 40 for key in batch) == 1 for part in parts for batch in part)


def test_stores_are_spread_evenly_over_a_batch() -> None:
    assert mixing_order([6, 2]) == [0, 1, 6, 2, 3, 4, 7, 5]
    for pieces in (2, 4):
        order = torch.tensor(mixing_order([48, 16])).view(pieces, -1)
        assert ((order >= 48).sum(dim=1) == 16 // pieces).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_batches_by_store(workers: int) -> None:
    dataset = mixed()
    one = sampler(dataset)
    for keys, batch in zip(list(sampler()), slice_loader(dataset, one, workers), strict=True):
        assert batch["key"].tolist() == keys
        assert [tuple(image.shape) for image in batch["image"]] == [(6, 1, 4, 4), (2, 1, 5, 5)]
        together = torch.cat(batch["index"])[torch.tensor(mixing_order([6, 2]))]
        visits, numbers = together // VISIT, together % VISIT
        starts = (batch["key"] % VISIT >= 40) * 40
        assert (numbers + starts + visits * VISIT).tolist() == keys
        for image, index, first in zip(batch["image"], batch["index"], (0, 1000), strict=True):
            assert (image[:, 0, 0, 0] == first + index % VISIT).all()


def test_what_stands_for_all_stores() -> None:
    first, second = Store(40, 0), Store(9, 1000)
    stores = MixedStores([first, second], (0.75, 0.25))
    assert len(stores) == len(mixed()) == 49
    others = [MixedStores([second, first], (0.75, 0.25)), MixedStores([first, second], (0.5, 0.5))]
    assert len({stores.content_hash, *(other.content_hash for other in others)}) == 3


def test_shares_that_cannot_be_had_are_refused() -> None:
    for shares in ((0.9, 0.2), (1.0, 0.0), (0.5, 0.3, 0.2)):
        with pytest.raises(DataError, match="add up to 1"):
            MixedBatchSampler(mixed(), shares, 8, 0)
    with pytest.raises(DataError, match="--second_share"):
        MixedBatchSampler(mixed(), (0.99, 0.01), 8, 0)
    with pytest.raises(DataError, match=r"multiple of 2 \(processes\)"):
        MixedBatchSampler(mixed(), (0.625, 0.375), 8, 0, world_size=2)
    with pytest.raises(DataError, match="9 slices do not fill"):
        MixedBatchSampler(mixed(), (0.5, 0.5), 20, 0)


def test_an_image_has_a_name_in_messages() -> None:
    dataset = mixed()
    sizes = [len(part) for part in dataset.parts]
    assert dataset.place_of(3) == "3 of store 1"
    assert dataset.place_of(sizes[0]) == dataset.place_of(7 * VISIT + sizes[0]) == "0 of store 2"
    guard = FiniteGuard(torch.nn.Identity(), False, dataset.place_of)
    keys = torch.arange(sizes[0] - 1, sizes[0] + 1).repeat(12)
    with pytest.raises(TrainingError, match=f"images {sizes[0] - 1} of store 1, 0 of store 2, .* and 4 more; look"):
        guard.accepts(torch.tensor(torch.nan), torch.tensor(1.0), torch.tensor(torch.nan), "step 1", keys, None)
