from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.order import ArithmeticBatchSampler, epoch_order
from monai_ssl_transfer.errors import DataError


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 5000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10_000))
def test_an_epoch_holds_every_index_once(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert np.array_equal(np.sort(order(np.arange(n))), np.arange(n))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 5000), seed=st.integers(0, 2**31), data=st.data())
def test_any_position_can_be_looked_up_alone(n: int, seed: int, data: st.DataObject) -> None:
    order = epoch_order(n, seed, 3)
    position = data.draw(st.integers(0, n - 1))
    assert order[position] == order(np.arange(n))[position]
    with pytest.raises(IndexError):
        order[n]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = epoch_order(1000, 7, 0)(np.arange(1000))
    assert np.array_equal(first, epoch_order(1000, 7, 0)(np.arange(1000)))
    for seed, epoch in ((7, 1), (8, 0), (0, 7)):
        assert (first == epoch_order(1000, seed, epoch)(np.arange(1000))).mean() < 0.02
    # seed and epoch must not be interchangeable
    assert not np.array_equal(epoch_order(1000, 0, 7)(np.arange(1000)), first)


@pytest.mark.parametrize("n", [5, 7, 64, 1000])
def test_orders_are_uniform(n: int) -> None:
    """Over many epochs each index is equally often at each of the first positions (chi-squared against uniform)."""
    epochs = 1000
    positions = np.arange(min(n, 4))
    seen = np.stack([epoch_order(n, 1, epoch)(positions) for epoch in range(epochs)])
    for column in seen.T:
        counts = np.bincount(column, minlength=n)
        statistic = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
        assert statistic < (n - 1) + 5 * np.sqrt(2 * (n - 1))


def test_neighbours_do_not_stay_together() -> None:
    order = epoch_order(100_000, 3, 5)(np.arange(100_000)).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02


def test_twelve_million_need_no_memory() -> None:
    order = epoch_order(12_000_000, 0, 9)
    assert 0 <= order[11_999_999] < 12_000_000
    assert len(order.keys) < 20


def _epochs(count: int, **arguments: int) -> list[list[int]]:
    sampler = ArithmeticBatchSampler(103, 12, seed=5, **arguments)
    return [batch for _ in range(count) for batch in sampler]


def test_ranks_share_the_same_global_batches() -> None:
    alone = _epochs(2)
    assert len(alone) == 2 * (103 // 12)
    for world_size in (2, 3, 4):
        parts = [_epochs(2, rank=rank, world_size=world_size) for rank in range(world_size)]
        together = [list(itertools.chain(*batches)) for batches in zip(*parts, strict=True)]
        assert together == alone


def test_position_can_be_set() -> None:
    alone = _epochs(3)
    sampler = ArithmeticBatchSampler(103, 12, seed=5)
    sampler.set_position(1, 3)
    assert list(sampler) == alone[8 + 3 : 16]
    assert list(sampler) == alone[16:]
    with pytest.raises(IndexError):
        sampler.set_position(0, 9)


def test_an_epoch_can_be_shorter_than_a_pass() -> None:
    alone = _epochs(2)
    sampler = ArithmeticBatchSampler(103, 12, seed=5)
    sampler.shorten(3)
    assert len(sampler) == 3
    # two epochs of three fit into a pass of eight
    assert [batch for _ in range(3) for batch in sampler] == alone[:6] + alone[8:11]
    sampler.set_position(1, 2)
    assert list(sampler) == alone[5:6]
    with pytest.raises(IndexError):
        sampler.shorten(4)


def test_batches_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(DataError, match="smaller --batch_size"):
        ArithmeticBatchSampler(10, 12, 0)
    with pytest.raises(DataError, match="multiple"):
        ArithmeticBatchSampler(100, 9, 0, world_size=2)
    with pytest.raises(DataError, match="no slices"):
        epoch_order(0, 0, 0)
