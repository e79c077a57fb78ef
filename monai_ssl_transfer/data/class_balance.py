"""Rare classes: how many images each part has of each class, weights for the loss, and a balanced order of an epoch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler, Sampler

from monai_ssl_transfer.data.annotations import with_classes
from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

BALANCES = ("none", "sampler", "loss")
SUPPORT = "class_support.json"
"""File of a run: images by part and class."""


def class_labels(cases: Sequence[Mapping[str, Any]], class_names: Sequence[str], key: str = "class") -> np.ndarray:
    """The class numbers of a list of cases.

    Args:
        cases: each with its class number under ``key``; or of an annotator, with a label file (`annotations`).
        class_names: one per class.
        key: where a case holds its class.

    Returns:
        (N,) int64.

    Raises:
        DataError: a case whose class is no number of a class.
    """
    cases = with_classes(cases, class_names) if key == "class" else cases
    for case in cases:
        label = case.get(key)
        if isinstance(label, bool) or not isinstance(label, int | np.integer) or not 0 <= label < len(class_names):
            raise DataError(
                f"{case.get('image', case.get('name'))} has the class {label!r}, but class_names lists "
                f"{len(class_names)} classes: give class_names and the outputs of the network to match."
            )
    return np.asarray([case[key] for case in cases], dtype=np.int64)


def finding_targets(cases: Sequence[Mapping[str, Any]], class_names: Sequence[str], key: str = "class") -> np.ndarray:
    """What every case shows, where it may show several findings or none.

    Args:
        cases: each with a list of 0 and 1, one per finding, under ``key``; or of an annotator, with a label file.
        class_names: one per finding.
        key: where a case holds the list.

    Returns:
        (N, C) float32 of 0 and 1.

    Raises:
        DataError: a case without such a list.
    """
    cases = with_classes(cases, class_names, several=True) if key == "class" else cases
    for case in cases:
        found = case.get(key)
        if not isinstance(found, list | tuple) or len(found) != len(class_names) or not set(found) <= {0, 1}:
            raise DataError(
                f"{case.get('image', case.get('name'))} has no list of 0 and 1 for {len(class_names)} findings: give "
                "class_names and the cases to match."
            )
    return np.asarray([case[key] for case in cases], dtype=np.float32).reshape(len(cases), len(class_names))


def _counts(cases: Sequence[Mapping[str, Any]], class_names: Sequence[str], key: str) -> np.ndarray:
    """Images per class; one of several findings counts for each of them."""
    if cases and isinstance(cases[0].get(key), list | tuple):
        return finding_targets(cases, class_names, key).sum(axis=0).astype(np.int64)
    return np.bincount(class_labels(cases, class_names, key), minlength=len(class_names))


def positive_weights(targets: np.ndarray, balance: str, device: torch.device | str = "cpu") -> Tensor | None:
    """Weights of the positives for a loss over several findings.

    Args:
        targets: (N, C) of 0 and 1, of the training images.
        balance: "loss": negatives / positives of every finding (Wang et al. 2017, ChestX-ray8, section 4.1); "none".
        device: where the loss is computed.

    Returns:
        (C,) float32, 1 for a finding that no image shows; None for "none".

    Raises:
        DataError: another balance; images of several findings cannot be drawn so that all are equally frequent.
    """
    if _checked(balance) == "sampler":
        raise DataError("balance 'sampler' cannot make several findings equally frequent: choose loss or none.")
    if balance == "none":
        return None
    positives = targets.sum(axis=0)
    weights = np.divide(len(targets) - positives, positives, out=np.ones_like(positives), where=positives > 0)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def class_support(
    cases: Mapping[str, Sequence[Mapping[str, Any]]], class_names: Sequence[str], key: str = "class"
) -> dict[str, dict[str, int]]:
    """Count the images of every class in every part, and say so in the log: a rare class is never lost unseen.

    Args:
        cases: cases by part, as `divide_frames` returns them.
        class_names: one per class.
        key: where a case holds its class, or its list of findings.

    Returns:
        {part: {class name: images}}, with a 0 for every class that a part lacks.

    Raises:
        DataError: a case whose class is no number of a class.
    """
    counts = {part: _counts(listed, class_names, key) for part, listed in cases.items()}
    width = max(len(name) for name in class_names)
    rows = [f"  {name:{width}}" + "".join(f"{counts[p][i]:>12}" for p in counts) for i, name in enumerate(class_names)]
    head = f"  {'':{width}}" + "".join(f"{part:>12}" for part in counts)
    logger.info("images per class and part\n%s", "\n".join([head, *rows]))
    for part, found in counts.items():
        absent = [name for name, count in zip(class_names, found, strict=True) if not count]
        if absent:
            logger.warning("%s has no image of %s", part, ", ".join(absent))
    return {
        part: {name: int(count) for name, count in zip(class_names, found, strict=True)}
        for part, found in counts.items()
    }


def record_class_support(
    cases: Mapping[str, Sequence[Mapping[str, Any]]], class_names: Sequence[str], output_dir: str | Path
) -> dict[str, dict[str, int]]:
    """`class_support` of a training run, kept in ``class_support.json`` for its evaluations; several ranks may do so.

    Args:
        cases: cases by part, as `divide_frames` returns them.
        class_names: one per class.
        output_dir: folder of the run.
    """
    found = class_support(cases, class_names)
    content = (json.dumps(found, indent=1) + "\n").encode()
    write_durably(Path(output_dir) / SUPPORT, lambda file: file.write(content))
    return found


def support_with_evaluated(
    evaluated: Sequence[Mapping[str, Any]], class_names: Sequence[str], run_dir: str | Path
) -> dict[str, dict[str, int]]:
    """Images by class of the parts of a run, where it recorded them, and of those that are evaluated now.

    Args:
        evaluated: the cases.
        class_names: one per class.
        run_dir: folder of the training run.

    Returns:
        {"train": ..., "validation": ..., "test": ..., "evaluated": {class name: images}}.

    Raises:
        DataError: the record is damaged, or a case has no known class.
    """
    file = Path(run_dir) / SUPPORT
    recorded: dict[str, dict[str, int]] = {}
    if file.is_file():
        try:
            recorded = json.loads(file.read_text())
            recorded = {part: {name: int(found[name]) for name in class_names} for part, found in recorded.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file} does not list these classes ({error!r}): give the task of the run.") from error
    else:
        logger.warning("there is no %s: the summary tells the evaluated images alone", file)
    return {**recorded, **class_support({"evaluated": evaluated}, class_names)}


def class_weights(labels: Sequence[int] | np.ndarray, classes: int, effective_beta: float = 0.0) -> Tensor:
    """Weights for a loss that make up for rare classes, scaled so that the mean weight of the images is 1.

    With ``effective_beta`` 0 the weight of a class is N / (C N_c), as in SSL4GIE. Otherwise it is the inverse of the
    effective number of images (1 - beta^N_c) / (1 - beta) of Cui et al. 2019 (https://arxiv.org/abs/1901.05555), which
    flattens the weights of frequent classes; beta towards 1 approaches N / (C N_c).

    Args:
        labels: (N,) class of every training image.
        classes: number of classes.
        effective_beta: 0, or below 1 such as 0.999.

    Returns:
        (classes,) float32; 0 for a class without an image, which no target ever asks for.

    Raises:
        DataError: no image, or beta out of range.
    """
    if not 0 <= effective_beta < 1:
        raise DataError(f"effective_beta is {effective_beta:g}: give 0 or a number below 1, such as 0.999.")
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=classes).astype(np.float64)
    if not counts.any():
        raise DataError("there is no training image to take class weights from: check the split.")
    effective = (1 - effective_beta**counts) / (1 - effective_beta) if effective_beta else counts
    weights = np.divide(1.0, effective, out=np.zeros(len(counts)), where=counts > 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def loss_weights(
    labels: Sequence[int] | np.ndarray,
    classes: int,
    balance: str,
    effective_beta: float = 0.0,
    device: torch.device | str = "cpu",
) -> Tensor | None:
    """`class_weights` on a device where ``balance`` is "loss", else None (the loss weighs all images alike).

    Raises:
        DataError: an unknown balance.
    """
    return class_weights(labels, classes, effective_beta).to(device) if _checked(balance) == "loss" else None


class ClassBalancedSampler(Sampler[int]):
    """An epoch in which every class comes equally often, the same on every machine and split evenly over processes.

    Each class gets the same number of places (the rest goes to classes drawn by lot), and fills them from its images in
    a random order, starting again when it runs out: all images of a rare class are seen before any of them comes once
    more, and a frequent class shows another part of itself in every epoch. Everything follows from seed and epoch, so
    that all processes agree without talking; each takes every ``world_size``-th place.

    Args:
        labels: (N,) class of every item of the data set.
        seed: the run's seed.
        rank: this process.
        world_size: number of processes.

    Raises:
        DataError: fewer images than processes.
    """

    def __init__(self, labels: Sequence[int] | np.ndarray, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        numbers = np.asarray(labels, dtype=np.int64)
        if len(numbers) < world_size:
            raise DataError(f"{len(numbers)} training images cannot be shared by {world_size} processes: use fewer.")
        self.members = [np.flatnonzero(numbers == one) for one in np.unique(numbers)]
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.share = len(numbers) // world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.share

    def __iter__(self) -> Iterator[int]:
        return iter(self._order()[self.rank :: self.world_size].tolist())

    def _order(self) -> np.ndarray:
        """Item numbers of the whole epoch, over all processes."""
        rng = np.random.default_rng([self.seed, self.epoch])
        total = self.share * self.world_size
        places = np.full(len(self.members), total // len(self.members))
        places[rng.permutation(len(self.members))[: total % len(self.members)]] += 1
        drawn = []
        for members, count in zip(self.members, places, strict=True):
            rounds = -(-int(count) // len(members))
            drawn.append(np.concatenate([rng.permutation(members) for _ in range(max(rounds, 1))])[:count])
        return rng.permutation(np.concatenate(drawn))


def training_sampler(labels: Sequence[int] | np.ndarray, balance: str, seed: int = 0) -> Sampler | None:
    """The sampler of a training loader, in one process or, once `torch.distributed` is initialised, in several.

    Args:
        labels: (N,) class of every item of the data set.
        balance: "sampler" for equally frequent classes, otherwise the classes as they come.
        seed: the run's seed.

    Returns:
        `ClassBalancedSampler`; or torch's `DistributedSampler` in several processes; or None, for a loader that
        shuffles by itself. Whatever is returned has ``set_epoch``.

    Raises:
        DataError: an unknown balance.
    """
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    if _checked(balance) == "sampler":
        return ClassBalancedSampler(labels, seed, rank, world_size)
    if not several:
        return None
    everything: Any = range(len(labels))
    return DistributedSampler(everything, world_size, rank, shuffle=True, seed=seed, drop_last=True)


def _checked(balance: str) -> str:
    if balance not in BALANCES:
        raise DataError(f"balance '{balance}' is unknown: choose one of {', '.join(BALANCES)}.")
    return balance
