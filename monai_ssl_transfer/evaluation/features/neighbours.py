"""The images that an encoder finds most alike, those of the same patient left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.grouped import drawn_ratios, measured
from monai_ssl_transfer.evaluation.features.uniformity import unit
from monai_ssl_transfer.evaluation.robustness import Measured

_CHUNK = 512


def nearest_of_others(vectors: np.ndarray, groups: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """For every image those of other patients with the largest cosine, nearest first.

    Args:
        vectors: (N, D).
        groups: (N,) patients.
        count: neighbours k.

    Returns:
        (N, k) positions, -1 where other patients have fewer images than k; and their cosines, nan there.

    Raises:
        DataError: if all images are of one patient.
    """
    rows = unit(vectors)
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(rows) < 2 or numbers.max() == 0:
        raise DataError("Neighbours of other patients need at least two patients: name them by --group-pattern.")
    kept = min(count, len(rows) - 1)
    found = np.full((len(rows), count), -1)
    cosines = np.full((len(rows), count), np.nan)
    for start in range(0, len(rows), _CHUNK):
        near = rows[start : start + _CHUNK] @ rows.T
        near[numbers[start : start + _CHUNK, None] == numbers[None]] = -np.inf
        order = np.argsort(-near, axis=1, kind="stable")[:, :kept]
        values = np.take_along_axis(near, order, axis=1)
        there = np.isfinite(values)
        found[start : start + _CHUNK, :kept] = np.where(there, order, -1)
        cosines[start : start + _CHUNK, :kept] = np.where(there, values, np.nan)
    return found, cosines


def same_class_share(
    neighbours: np.ndarray, labels: Sequence[str], groups: Sequence[str], seed: int = 0
) -> tuple[Measured, float]:
    """Share of the neighbours that have the class of their image, and the share that chance would give.

    Args:
        neighbours: (N, k) of `nearest_of_others`.
        labels: (N,) classes.
        groups: (N,) patients.
        seed: of the bootstrap over patients.

    Returns:
        The share with its interval, and the mean share of each image's class among the images of other patients.
    """
    classes = np.unique(np.asarray(labels), return_inverse=True)[1]
    patients = np.unique(np.asarray(groups), return_inverse=True)[1]
    there = neighbours >= 0
    same = there & (classes[neighbours] == classes[:, None])
    table = np.zeros((patients.max() + 1, classes.max() + 1))
    np.add.at(table, (patients, classes), 1)
    alike = table.sum(axis=0)[classes] - table[patients, classes]
    others = len(classes) - table.sum(axis=1)[patients]
    chance = float((alike / np.maximum(others, 1))[others > 0].mean())
    ratios = drawn_ratios(same.sum(axis=1), there.sum(axis=1), groups, seed=seed)
    return measured(ratios, len(table)), chance
