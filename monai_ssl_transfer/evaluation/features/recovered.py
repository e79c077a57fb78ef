"""What a linear model reads out of features about an image: ridge regression, cross-validated by patient."""

from __future__ import annotations

from collections.abc import Sequence
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


def recover(vectors: np.ndarray, wanted: np.ndarray, groups: Sequence[str], seed: int = 0) -> Recovered | None:
    """Predict a quantity of every image from its features by a model that was fitted to other patients.

    Features are standardised and the ridge's penalty is chosen within the training patients only (nested
    cross-validation by patient). The same seed makes the same folds and draws for every encoder.

    Args:
        vectors: (N, D).
        wanted: (N,) the quantity.
        groups: (N,) patients.
        seed: of the folds and the bootstrap.

    Returns:
        None where the quantity is the same in all images.

    Raises:
        DataError: for fewer than 3 patients.
    """
    rows, wanted = np.asarray(vectors, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        raise DataError(
            f"What features encode is cross-validated by patient and needs {FEWEST_GROUPS} patients, not {len(names)}: "
            "name them by --group-pattern."
        )
    if wanted.std() <= _SPREAD * max(1.0, abs(float(wanted.mean()))):
        return None
    predicted, guessed = np.empty(len(rows)), np.empty(len(rows))
    for train, test in folds(numbers, seed):
        penalty = _penalty(rows[train], wanted[train], numbers[train], seed)
        predicted[test] = ridge(rows[train], wanted[train], rows[test], (penalty,))[0]
        guessed[test] = wanted[train].mean()
    ratios = 1 - drawn_ratios((wanted - predicted) ** 2, (wanted - guessed) ** 2, groups, seed=seed)
    return Recovered(measured(ratios, len(names)), ratios, predicted)


def folds(numbers: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test positions of up to 5 folds of whole patients.

    Args:
        numbers: (N,) patient of each image.
        seed: of the order in which patients are dealt out.
    """
    from sklearn.model_selection import GroupKFold

    count = min(_FOLDS, len(np.unique(numbers)))
    return list(GroupKFold(count, shuffle=True, random_state=seed).split(numbers, groups=numbers))


def _penalty(rows: np.ndarray, wanted: np.ndarray, numbers: np.ndarray, seed: int) -> float:
    """The penalty with the least error over patients left out; the strongest where there is only one patient."""
    if len(np.unique(numbers)) < 2:
        return PENALTIES[-1]
    errors = np.zeros(len(PENALTIES))
    for train, test in folds(numbers, seed):
        errors += ((ridge(rows[train], wanted[train], rows[test], PENALTIES) - wanted[test]) ** 2).sum(axis=1)
    return PENALTIES[int(errors.argmin())]


def ridge(train: np.ndarray, wanted: np.ndarray, test: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Ridge regression with an intercept on standardised features, for several penalties from one decomposition.

    Args:
        train: (N, D).
        wanted: (N,).
        test: (M, D).
        penalties: of the squared weights.

    Returns:
        (penalties, M) predictions.
    """
    mean, spread = train.mean(axis=0), train.std(axis=0)
    scale = np.where(spread > _SPREAD, spread, np.inf)  # a feature that never varies tells nothing
    left, singular, right = np.linalg.svd((train - mean) / scale, full_matrices=False)
    along = left.T @ (wanted - wanted.mean())
    seen = ((test - mean) / scale) @ right.T
    return np.stack([seen @ (singular / (singular**2 + one) * along) + wanted.mean() for one in penalties])
