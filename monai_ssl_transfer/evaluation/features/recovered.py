"""What a linear model reads out of features about an image: ridge regression, cross-validated by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.grouped import drawn_ratios, measured
from monai_ssl_transfer.evaluation.robustness import Measured

FEWEST_GROUPS = 3
PENALTIES = tuple(float(value) for value in 10.0 ** np.arange(-2, 7))
_FOLDS = 5
_SPREAD = 1e-9


@dataclass(frozen=True)
class Recovered:
    """How well one quantity is read out.

    Args:
        r2: 1 - error of the linear model / error of guessing the mean of the training patients; 1 is perfect, 0 as
            good as guessing, below 0 worse. With a 95 % interval over patients.
        ratios: the draws behind the interval, for differences between encoders.
        predicted: (N,) of each image by the model that did not see its patient.
    """

    r2: Measured
    ratios: np.ndarray
    predicted: np.ndarray


def recover(
    vectors: np.ndarray, wanted: Mapping[str, np.ndarray], groups: Sequence[str], seed: int = 0
) -> dict[str, Recovered]:
    """Predict quantities of every image from its features by models that were fitted to other patients.

    Features are standardised, and the ridge's penalty is chosen for each quantity within the training patients only
    (nested cross-validation by patient). The same seed makes the same folds and draws for every encoder.

    Args:
        vectors: (N, D).
        wanted: (N,) by name.
        groups: (N,) patients.
        seed: of the folds and the bootstrap.

    Returns:
        By name; a quantity that is the same in all images is not there.

    Raises:
        DataError: for fewer than 3 patients.
    """
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        raise DataError(
            f"What features encode is cross-validated by patient and needs {FEWEST_GROUPS} patients, not {len(names)}: "
            "name them by --group-pattern."
        )
    varying = {name: np.asarray(value, dtype=np.float64) for name, value in wanted.items() if _varies(value)}
    if not varying:
        return {}
    rows, table = np.asarray(vectors, dtype=np.float64), np.stack(list(varying.values()), axis=1)
    predicted, guessed = np.empty_like(table), np.empty_like(table)
    for train, test in folds(numbers, seed):
        chosen = _penalties(rows[train], table[train], numbers[train], seed)
        every = ridge(rows[train], table[train], rows[test], PENALTIES)
        predicted[test] = every[chosen, :, np.arange(len(chosen))].T
        guessed[test] = table[train].mean(axis=0)
    found = {}
    for i, name in enumerate(varying):
        above, below = (table[:, i] - predicted[:, i]) ** 2, (table[:, i] - guessed[:, i]) ** 2
        ratios = 1 - drawn_ratios(above, below, groups, seed=seed)
        found[name] = Recovered(measured(ratios, len(names)), ratios, predicted[:, i])
    return found


def _varies(values: np.ndarray) -> bool:
    return bool(np.std(values) > _SPREAD * max(1.0, abs(float(np.mean(values)))))


def folds(numbers: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test positions of up to 5 folds of whole patients.

    Args:
        numbers: (N,) patient of each image.
        seed: of the order in which patients are dealt out.
    """
    from sklearn.model_selection import GroupKFold

    count = min(_FOLDS, len(np.unique(numbers)))
    return list(GroupKFold(count, shuffle=True, random_state=seed).split(numbers, groups=numbers))


def _penalties(rows: np.ndarray, wanted: np.ndarray, numbers: np.ndarray, seed: int) -> np.ndarray:
    """(T,) number of the penalty with the least error over patients left out; the strongest with one patient only."""
    if len(np.unique(numbers)) < 2:
        return np.full(wanted.shape[1], len(PENALTIES) - 1)
    errors = np.zeros((len(PENALTIES), wanted.shape[1]))
    for train, test in folds(numbers, seed):
        errors += ((ridge(rows[train], wanted[train], rows[test], PENALTIES) - wanted[test]) ** 2).sum(axis=1)
    return errors.argmin(axis=0)


def ridge(train: np.ndarray, wanted: np.ndarray, test: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Ridge regression with an intercept on standardised features: several penalties and targets, one decomposition.

    Args:
        train: (N, D).
        wanted: (N, T).
        test: (M, D).
        penalties: of the squared weights.

    Returns:
        (penalties, M, T) predictions, kept within the range of the training images and half of it on either side: a
        line goes far beyond for a single image with unusual features, which would then decide the error of all.
    """
    mean, spread = train.mean(axis=0), train.std(axis=0)
    scale = np.where(spread > _SPREAD, spread, np.inf)  # a feature that never varies tells nothing
    x, seen = (train - mean) / scale, (test - mean) / scale
    middle = wanted.mean(axis=0)
    if len(x) <= x.shape[1]:  # through the products of images: cheaper where there are fewer of them than features
        values, vectors = np.linalg.eigh(x @ x.T)
        along, out = vectors.T @ (wanted - middle), (seen @ x.T) @ vectors
    else:
        values, vectors = np.linalg.eigh(x.T @ x)
        along, out = vectors.T @ (x.T @ (wanted - middle)), seen @ vectors
    found = np.stack([out @ (along / (np.maximum(values, 0)[:, None] + one)) + middle for one in penalties])
    beyond = np.ptp(wanted, axis=0) / 2
    return np.clip(found, wanted.min(axis=0) - beyond, wanted.max(axis=0) + beyond)
