"""The queue holds the last keys, whatever the sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoder import TinyEncoder, random_views
from torch import nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods import MoCoV2
from monai_ssl_transfer.methods.queue import KeyQueue


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 12), batches=st.lists(st.integers(1, 15), min_size=1, max_size=8))
def test_queue_holds_the_last_keys(size: int, batches: list[int]) -> None:
    queue = KeyQueue(size, 1)
    start = queue.keys.flatten().tolist()
    history = list(range(100, 100 + sum(batches)))
    position = 0
    for count in batches:
        queue.enqueue(torch.tensor(history[position : position + count], dtype=torch.float32)[:, None])
        position += count
    last = history[-size:]
    kept = queue.keys.flatten().tolist()
    assert set(last) <= set(kept)
    assert len([value for value in kept if value in start]) >= size - len(last)
    assert int(queue.enqueued) == len(history)


def moco(precision: str = "fp32", size: int = 10) -> MoCoV2:
    torch.manual_seed(0)
    return MoCoV2(TinyEncoder(), queue_size=size, hidden_dim=32, output_dim=8, queue_precision=precision)


def test_moco_enqueues_once_after_the_step() -> None:
    method = moco()
    before = method.queue.keys.clone()
    output = method(random_views(0), 0.0)
    output["loss"].backward()
    assert torch.equal(method.queue.keys, before)
    keys = nn.functional.normalize(method.represent(random_views(0), 0.0)["key"], dim=1)
    method.after_step(0.1)
    assert int(method.queue.enqueued) == 6
    assert torch.allclose(method.queue.keys[:6], keys, atol=1e-6)
    assert torch.equal(method.queue.keys[6:], before[6:])
    method.after_step(0.1)
    assert int(method.queue.enqueued) == 6


def test_pieces_of_a_step_do_not_meet_each_others_keys() -> None:
    method, alone = moco().eval(), moco().eval()
    method.train(True)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    views = random_views(0)
    pieces = [method([view[place] for view in views], 0.3) for place in (slice(0, 4), slice(4, 6))]
    second = alone([view[4:] for view in views], 0.3)
    assert pieces[1]["loss"].item() == second["loss"].item()
    method.after_step(0.4)
    keys = nn.functional.normalize(alone.represent(views, 0.3)["key"], dim=1)
    assert torch.allclose(method.queue.keys[:6], keys, atol=1e-6)  # in the images' order
    assert int(method.queue.enqueued) == 6


def test_keys_of_a_step_that_was_left_out_are_lost() -> None:
    method = moco()
    method([view * float("nan") for view in random_views(0)], 0.1)
    method(random_views(1), 0.2)
    method.after_step(0.3)
    assert int(method.queue.enqueued) == 6
    assert torch.isfinite(method.queue.keys).all()


def test_evaluation_leaves_the_queue_alone() -> None:
    method = moco().eval()
    before = method.queue.keys.clone()
    method(random_views(0), 0.0)
    method.after_step(0.1)
    assert torch.equal(method.queue.keys, before)
    assert int(method.queue.enqueued) == 0


def test_half_precision_halves_the_queue_and_hardly_changes_the_loss() -> None:
    full, half = moco("fp32", 100), moco("fp16", 100)
    assert half.queue.keys.dtype == torch.float16
    assert half.queue.keys.nbytes * 2 == full.queue.keys.nbytes
    negatives = half.queue(torch.zeros(2, 8))[1]
    assert negatives.dtype == torch.float32
    assert torch.equal(negatives.T, full.queue.keys.half().float())
    for step in range(3):
        losses = [method(random_views(step), step / 3)["loss"].item() for method in (full, half)]
        for method in (full, half):
            method.after_step((step + 1) / 3)
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert int(half.queue.enqueued) == 18
    assert torch.allclose(half.queue.keys.float(), full.queue.keys, rtol=2**-11, atol=1e-6)


def test_half_precision_wraps_around() -> None:
    queue = KeyQueue(3, 1, "fp16")
    queue.enqueue(torch.tensor([[1.0], [2.0]]))
    queue.enqueue(torch.tensor([[3.0], [4.0]]))
    assert queue.keys.flatten().tolist() == [4.0, 2.0, 3.0]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(TrainingError, match="queue_precision 'int8'"):
        KeyQueue(3, 1, "int8")
    with pytest.raises(TrainingError, match="queue_size 0"):
        KeyQueue(0, 1)
