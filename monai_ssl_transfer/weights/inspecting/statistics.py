"""Figures of an encoder's tensors, and what in them looks as if nothing had been trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

NORM = re.compile(r"(^|\.)(norm\d?|bn\d|downsample\.1)\.")
STAGE = re.compile(r"^(layer\d)\.")
BLOCK = re.compile(r"^blocks\.(\d+)\.")
BLOCKS_PER_GROUP = 4


@dataclass(frozen=True)
class GroupStatistics:
    """Figures of all numbers in some tensors.

    Args:
        group: which: "stem", "layer1", "blocks 0-3", "norm", ...
        tensors: how many tensors.
        numbers: how many numbers.
        mean: of all numbers.
        sd: their standard deviation.
        minimum: smallest.
        maximum: largest.
        zeros: share that is exactly zero, 0 to 1.
    """

    group: str
    tensors: int
    numbers: int
    mean: float
    sd: float
    minimum: float
    maximum: float
    zeros: float


def statistics_of(state: Mapping[str, Tensor]) -> tuple[GroupStatistics, ...]:
    """Figures per group of an encoder: stem, stages or blocks, norms.

    Args:
        state: canonical names to tensors; counters of batches are left out.
    """
    groups: dict[str, list[Tensor]] = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault(_group(name), []).append(tensor.detach())
    return tuple(_figures(group, groups[group]) for group in sorted(groups, key=_order))


def doubts(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Sentences on what looks untrained or constant.

    Args:
        state: canonical names to tensors.
    """
    weights = {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and tensor.numel() > 1}
    matrices = {name: tensor for name, tensor in weights.items() if tensor.ndim >= 2 and name != "cls_token"}
    constant = [name for name, tensor in matrices.items() if bool((tensor == tensor.flatten()[0]).all())]
    found = [f"{_listed(constant)} constant: nothing was trained there"] if constant else []
    scales = [tensor for name, tensor in weights.items() if NORM.search(name) and name.endswith("weight")]
    if scales and all(bool(((tensor == 1) | (tensor == 0)).all()) for tensor in scales):
        found.append("the weights of all norms are exactly 1 or 0, as before training: the encoder looks untrained")
    means = [tensor for name, tensor in weights.items() if name.endswith("running_mean")]
    if means and not any(bool(tensor.any()) for tensor in means):
        found.append("the running means of all batch norms are 0, as before the first batch: they saw no image")
    return tuple(found)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def _group(name: str) -> str:
    if NORM.search(name) and not name.startswith("patch_embed."):
        return "norm"
    if stage := STAGE.match(name):
        return stage[1]
    if block := BLOCK.match(name):
        first = int(block[1]) // BLOCKS_PER_GROUP * BLOCKS_PER_GROUP
        return f"blocks {first}-{first + BLOCKS_PER_GROUP - 1}"
    return "stem"


def _order(group: str) -> tuple[bool, bool, int]:
    """The way of an image: stem, stages or blocks; then the norms of all of them."""
    digits = re.search(r"\d+", group)
    return group == "norm", group != "stem", int(digits[0]) if digits else 0


def _figures(group: str, tensors: list[Tensor]) -> GroupStatistics:
    """Sums in float64, one tensor at a time."""
    numbers = sum(tensor.numel() for tensor in tensors)
    mean = sum(float(tensor.sum(dtype=torch.float64)) for tensor in tensors) / numbers
    squares = sum(float((tensor.double() - mean).square().sum()) for tensor in tensors)
    return GroupStatistics(
        group=group,
        tensors=len(tensors),
        numbers=numbers,
        mean=mean,
        sd=(squares / numbers) ** 0.5,
        minimum=min(float(tensor.min()) for tensor in tensors),
        maximum=max(float(tensor.max()) for tensor in tensors),
        zeros=sum(int((tensor == 0).sum()) for tensor in tensors) / numbers,
    )
