from __future__ import annotations

import json
import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import multiprocessing
from torch.utils.data import DistributedSampler

from monai_ssl_transfer.data.class_balance import (
    ClassBalancedSampler,
    class_support,
    class_weights,
    loss_weights,
    record_class_support,
    support_with_evaluated,
    training_sampler,
)
from monai_ssl_transfer.errors import DataError

NAMES = ("polyps", "hemorrhoids", "barretts")


def cases(*labels: int) -> list[dict]:
    return [{"name": str(i), "image": f"{i}.jpg", "class": one} for i, one in enumerate(labels)]


def test_support_names_what_is_absent(caplog: pytest.LogCaptureFixture):
    parts = {"train": cases(0, 0, 1), "validation": cases(0), "test": cases(0, 1)}
    with caplog.at_level(logging.INFO):
        found = class_support(parts, NAMES)
    assert found["train"] == {"polyps": 2, "hemorrhoids": 1, "barretts": 0}
    assert found["validation"] == {"polyps": 1, "hemorrhoids": 0, "barretts": 0}
    assert "validation has no image of hemorrhoids, barretts" in caplog.messages
    assert "train has no image of barretts" in caplog.messages
    table = next(message for message in caplog.messages if message.startswith("images per class"))
    assert [line.split() for line in table.splitlines()[2:]][1] == ["hemorrhoids", "1", "0", "1"]


@pytest.mark.parametrize("label", [3, -1, "1", None, True, 1.0])
def test_a_class_that_is_none_is_refused(label: object):
    with pytest.raises(DataError, match=r"0\.jpg"):
        class_support({"train": [{"image": "0.jpg", "class": label}]}, NAMES)


def test_support_of_a_run_reaches_its_evaluation(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    parts = {"train": cases(0, 1, 2), "validation": cases(0), "test": cases(1)}
    recorded = record_class_support(parts, NAMES, tmp_path)
    assert support_with_evaluated(cases(1), NAMES, tmp_path) == {
        **recorded,
        "evaluated": {"polyps": 0, "hemorrhoids": 1, "barretts": 0},
    }
    assert set(support_with_evaluated(cases(1), NAMES, tmp_path / "elsewhere")) == {"evaluated"}
    assert "there is no" in caplog.text
    with pytest.raises(DataError, match="task of the run"):
        support_with_evaluated(cases(0), ("other",), tmp_path)
    (tmp_path / "class_support.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="class_support"):
        support_with_evaluated(cases(0), NAMES, tmp_path)


def test_weights_are_those_of_the_formulas():
    labels = [0] * 80 + [1] * 15 + [2] * 5
    assert class_weights(labels, 3).tolist() == pytest.approx([100 / (3 * 80), 100 / (3 * 15), 100 / (3 * 5)])
    beta = 0.99
    effective = np.array([sum(beta**i for i in range(n)) for n in (80, 15, 5)])  # the geometric series itself
    expected = 1 / effective / ((1 / effective * [80, 15, 5]).sum() / 100)
    assert class_weights(labels, 3, beta).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert class_weights(labels, 3, 0.999999).tolist() == pytest.approx(class_weights(labels, 3).tolist(), rel=1e-3)


def test_a_class_without_images_weighs_nothing_and_the_mean_is_one():
    weights = class_weights([0, 0, 0, 2], 4)
    assert weights[[1, 3]].tolist() == [0.0, 0.0]
    assert (3 * weights[0] + weights[2]) / 4 == pytest.approx(1.0)
    assert loss_weights([0, 1], 2, "none") is None
    assert loss_weights([0, 1], 2, "sampler") is None
    assert loss_weights([0, 0, 1], 2, "loss") is not None
    with pytest.raises(DataError, match="balance 'both'"):
        loss_weights([0, 1], 2, "both")
    with pytest.raises(DataError, match="effective_beta"):
        class_weights([0], 1, 1.0)
    with pytest.raises(DataError, match="no training image"):
        class_weights([], 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=60), st.integers(1, 4), st.integers(0, 100))
def test_every_epoch_is_balanced_over_all_processes(labels: list[int], world: int, seed: int):
    parts = [ClassBalancedSampler(labels, seed, rank, world) for rank in range(world)]
    for part in parts:
        part.set_epoch(3)
    shares = [list(part) for part in parts]
    assert {len(share) for share in shares} == {len(labels) // world} == {len(part) for part in parts}
    drawn = Counter(index for share in shares for index in share)
    per_class = Counter(labels[index] for share in shares for index in share)
    assert max(per_class.values()) - min(per_class.get(one, 0) for one in set(labels)) <= 1
    for one in set(labels):  # within a class no image comes twice more often than another
        times = [drawn[index] for index, label in enumerate(labels) if label == one]
        assert max(times) - min(times) <= 1


def test_an_epoch_follows_from_seed_and_epoch_alone():
    labels = [0] * 50 + [1] * 3

    def order(seed: int, epoch: int) -> list[int]:
        sampler = ClassBalancedSampler(labels, seed)
        sampler.set_epoch(epoch)
        np.random.default_rng().random()
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    seen = {index for epoch in range(8) for index in order(0, epoch)}
    assert seen == set(range(53))  # a frequent class shows another part of itself in every epoch
    with pytest.raises(DataError, match="cannot be shared"):
        ClassBalancedSampler([0], 0, 0, 2)


def test_one_process_needs_a_sampler_only_to_balance():
    assert training_sampler([0, 1], "none") is None
    assert training_sampler([0, 1], "loss") is None
    assert isinstance(training_sampler([0, 1], "sampler"), ClassBalancedSampler)


def draw_in_a_process(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    labels = [0] * 9 + [1] * 2
    balanced, plain = training_sampler(labels, "sampler", 5), training_sampler(labels, "none", 5)
    assert isinstance(plain, DistributedSampler)
    torch.save([list(balanced or ()), list(plain)], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_share_an_epoch(tmp_path: Path):
    multiprocessing.spawn(draw_in_a_process, (str(tmp_path),), nprocs=2)
    (first, one), (second, two) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    whole = list(ClassBalancedSampler([0] * 9 + [1] * 2, 5))
    assert Counter(np.array([0] * 9 + [1] * 2)[first + second].tolist()) == {0: 5, 1: 5}
    assert len(first) == len(second) == 5 and len(whole) == 11
    assert len(set(one + two)) == 10
