"""The queue holds the last keys, whatever the sizes."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoder import TinyEncoder, random_views

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


def test_moco_enqueues_once_after_the_loss() -> None:
    torch.manual_seed(0)
    method = MoCoV2(TinyEncoder(), queue_size=10, hidden_dim=32, output_dim=8)
    before = method.queue.keys.clone()
    loss = method(random_views(0), 0.0)["loss"]
    assert int(method.queue.enqueued) == 6
    assert torch.equal(method.queue.keys[6:], before[6:])
    assert torch.allclose(method.queue.keys[:6].norm(dim=1), torch.ones(6))
    method.queue.keys.copy_(before)
    assert method(random_views(0), 0.0)["loss"].item() == loss.item()  # the loss saw the queue as it was


def test_evaluation_leaves_the_queue_alone() -> None:
    method = MoCoV2(TinyEncoder(), queue_size=10, hidden_dim=32, output_dim=8).eval()
    before = method.queue.keys.clone()
    method(random_views(0), 0.0)
    assert torch.equal(method.queue.keys, before)
    assert int(method.queue.enqueued) == 0
