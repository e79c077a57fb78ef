"""Embeddings of a task's cases with what is known of them: what every probe takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.errors import DataError


@dataclass(frozen=True)
class LabelledVectors:
    """Embeddings with labels, one row per case.

    Args:
        vectors: (N, D) float32, the encoder's own output.
        targets: (N,) int64 classes, or (N, C) float32 of 0 and 1 where a case may have several findings or none.
        cases: N names.
        groups: N patients or scenes.
        class_names: names of the C classes or findings.
        blocks: (N, L, 2, D) outputs of a ViT's last L blocks, the last block first; ``[:, :, 0]`` is the class token,
            ``[:, :, 1]`` the mean of the patch tokens. None for a ResNet.

    Raises:
        DataError: lengths disagree, a target is none of the classes, or a number is not finite.
    """

    vectors: Tensor
    targets: Tensor
    cases: tuple[str, ...]
    groups: tuple[str, ...]
    class_names: tuple[str, ...]
    blocks: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.vectors), len(self.targets), len(self.cases), len(self.groups)}
        if len(lengths) > 1 or (self.blocks is not None and len(self.blocks) != len(self.vectors)):
            raise DataError(
                f"There are {len(self.vectors)} embeddings, {len(self.targets)} targets, {len(self.cases)} cases and "
                f"{len(self.groups)} groups: give one of each per image."
            )
        if not torch.isfinite(self.vectors).all():
            bad = int((~torch.isfinite(self.vectors).all(dim=1)).nonzero()[0])
            raise DataError(f"The embedding of {self.cases[bad]} is not finite: check the image and the encoder.")
        self._check_targets()

    def _check_targets(self) -> None:
        count = len(self.class_names)
        if self.multilabel:
            fine = self.targets.shape[1] == count and bool(((self.targets == 0) | (self.targets == 1)).all())
        else:
            fine = not self.targets.is_floating_point() and (
                len(self.targets) == 0 or (int(self.targets.min()) >= 0 and int(self.targets.max()) < count)
            )
        if not fine:
            raise DataError(
                f"The targets do not fit the {count} classes {', '.join(self.class_names)}: give class numbers, or a "
                "column of 0 and 1 per class."
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def multilabel(self) -> bool:
        """Whether a case may have several findings, or none."""
        return self.targets.ndim == 2

    @property
    def group_numbers(self) -> Tensor:
        """(N,) int64, one number per group of this set; numbers of two sets are made by `shared_group_numbers`."""
        return shared_group_numbers(self)[0]

    def subset(self, numbers: Sequence[int] | np.ndarray | Tensor) -> LabelledVectors:
        """The rows of these numbers, in their order.

        Args:
            numbers: row numbers.

        Returns:
            A new set; the class names stay.
        """
        rows = torch.as_tensor(np.asarray(numbers, dtype=np.int64))
        listed = rows.tolist()
        return replace(
            self,
            vectors=self.vectors[rows],
            targets=self.targets[rows],
            cases=tuple(self.cases[row] for row in listed),
            groups=tuple(self.groups[row] for row in listed),
            blocks=None if self.blocks is None else self.blocks[rows],
        )

    def volumes(self, names: Sequence[str]) -> LabelledVectors:
        """One row per volume: the mean of its slices' embeddings (3-D from 2-D, Baharoon et al. 2023).

        Args:
            names: the volume of every row.

        Returns:
            Volumes in the order in which they are first met, with the volume's name as case.

        Raises:
            DataError: the slices of a volume differ in target or group.
        """
        if len(names) != len(self):
            raise DataError(f"There are {len(self)} slices but {len(names)} names of volumes: give one per slice.")
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        owner = torch.tensor([order[name] for name in names], dtype=torch.int64)
        first = np.unique(owner.numpy(), return_index=True)[1]
        means = self.subset(first)
        for row, number in enumerate(owner.tolist()):
            same = bool((self.targets[row] == means.targets[number]).all())
            if not same or self.groups[row] != means.groups[number]:
                raise DataError(f"The slices of {names[row]} differ in target or patient: give a volume one of each.")
        vectors = _mean_by(self.vectors, owner, len(order))
        blocks = None if self.blocks is None else _mean_by(self.blocks, owner, len(order))
        return replace(means, vectors=vectors, blocks=blocks, cases=tuple(order))


def joined(first: LabelledVectors, second: LabelledVectors) -> LabelledVectors:
    """The rows of two sets of one task under each other.

    Raises:
        DataError: the sets have different classes.
    """
    if first.class_names != second.class_names or first.multilabel != second.multilabel:
        raise DataError("Two sets of embeddings with different classes cannot be joined: take them from one task.")
    both = first.blocks is not None and second.blocks is not None
    return LabelledVectors(
        torch.cat([first.vectors, second.vectors]),
        torch.cat([first.targets, second.targets]),
        first.cases + second.cases,
        first.groups + second.groups,
        first.class_names,
        torch.cat([first.blocks, second.blocks]) if both else None,  # type: ignore[list-item]
    )


def shared_group_numbers(*sets: LabelledVectors) -> list[Tensor]:
    """Number the groups of several sets together: a patient has one number in all of them.

    Args:
        sets: sets of one task.

    Returns:
        (N,) int64 for each set.
    """
    numbers: dict[Any, int] = {}
    return [torch.tensor([numbers.setdefault(one, len(numbers)) for one in part.groups]).long() for part in sets]


def _mean_by(values: Tensor, owner: Tensor, count: int) -> Tensor:
    # summed in double precision: a CT has hundreds of slices
    total = torch.zeros(count, *values.shape[1:], dtype=torch.float64).index_add_(0, owner, values.double())
    rows = torch.bincount(owner, minlength=count).clamp(min=1)
    return (total / rows.view(-1, *[1] * (values.ndim - 1))).to(values.dtype)
