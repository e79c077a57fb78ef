"""Embeddings across processes, so that a loss is the same however a batch is split."""

from __future__ import annotations

import inspect

import torch
from lightly.utils import dist
from torch import Tensor, nn


def between_processes(method: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a method in DistributedDataParallel: the gradients are the mean of those of the processes.

    Not ``idist.auto_model``, which moves a run that was asked to be on the CPU to a GPU if there is one. Buffers are
    sent around only now: later they are alike in all processes by themselves (queue, centre, synchronised statistics),
    or a process's own (statistics that are not synchronised), and a queue is large.

    Args:
        method: on its device.
        device: of this process.
    """
    for buffer in method.buffers():
        torch.distributed.broadcast(buffer, 0)
    wrapper = nn.parallel.DistributedDataParallel
    known = inspect.signature(wrapper).parameters
    buffers = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    return wrapper(method, device_ids=[device] if device.type == "cuda" else None, **buffers)  # type: ignore[arg-type]


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate `(B, D)` of all ranks, in rank order, to `(world * B, D)`; gradients flow back to every rank.

    When each rank computes the same loss from the result, the mean of the ranks' gradients (what DDP forms) is the
    gradient of one process with the whole batch. Without processes the input itself is returned.
    """
    if dist.world_size() == 1:
        return x
    return torch.cat(dist.gather(x.contiguous()))


@torch.no_grad()
def gather_detached(x: Tensor) -> Tensor:
    """Concatenate `(B, ...)` of all ranks, in rank order, without gradient."""
    return gather_with_gradient(x.detach())


@torch.no_grad()
def encode_interleaved(network: nn.Module, x: Tensor, groups: int = 1) -> Tensor:
    """Encode a batch in groups that are spread over the whole batch, across ranks if there are several.

    Batch norm then mixes other images than it does for contiguous groups, so that its statistics do not tell which
    key belongs to which query. That is the aim of MoCo's shuffling BN (He et al. 2020, arXiv 1911.05722, section 3.3);
    a fixed stride does it without random numbers, since the order of images is random already.

    Args:
        network: maps `(N, C, H, W)` to `(N, D)`.
        x: `(B, C, H, W)`, B the same on all ranks.
        groups: groups per process when there is one process; with several processes each of them is a group.

    Returns:
        `(B, D)` in the order of x, without gradient.
    """
    world, rank = dist.world_size(), dist.rank()
    if world == 1:
        return _weave([network(x[group::groups]) for group in range(groups)])
    encoded = gather_detached(network(gather_detached(x)[rank::world]))
    return _weave(list(encoded.chunk(world)))[rank * len(x) : (rank + 1) * len(x)]


def _weave(groups: list[Tensor]) -> Tensor:
    """The inverse of splitting rows with a stride of `len(groups)`."""
    total = sum(len(group) for group in groups)
    woven = groups[0].new_empty((total, *groups[0].shape[1:]))
    for number, group in enumerate(groups):
        woven[number :: len(groups)] = group
    return woven
