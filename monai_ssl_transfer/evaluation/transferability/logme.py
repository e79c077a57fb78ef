"""LogME: how well a Bayesian linear model on frozen embeddings explains the labels."""

from __future__ import annotations

import sys

import numpy as np
from scipy.optimize import minimize_scalar
from torch import Tensor

from monai_ssl_transfer.evaluation.transferability.columns import embeddings_and_columns

_DECADES = 12  # the ratio of the precisions is looked for so far on either side of the embeddings' own scale


def logme(vectors: Tensor, targets: Tensor) -> float:
    """Largest log evidence of a Bayesian linear regression of each class's 0/1 column, per case, mean over the classes.

    The model is y = F w + noise with w ~ N(0, 1/alpha) and noise ~ N(0, 1/beta) (You et al., ICML 2021). Given
    t = alpha / beta, the best beta has a closed form, so that the evidence is maximised along t alone, over 24
    decades, instead of by the fixed-point iteration that the authors put in the place of their first algorithm
    (You et al., JMLR 23, 2022) and that comes to the same point where it converges. Other than in their program, the
    determinant counts every one of the D dimensions where there are fewer cases than dimensions.

    Args:
        vectors: (N, D) embeddings, as they are: neither centred nor normalised.
        targets: (N,) int64 classes, or (N, C) of 0 and 1 where a case may have several findings.

    Returns:
        Log evidence divided by N; higher is better. Classes that no case has, or all, are left out.

    Raises:
        DataError: lengths disagree, or no class tells cases apart.
    """
    features, columns = embeddings_and_columns(vectors, targets)
    energies, along = _spectrum(features, columns)
    outside = np.maximum((columns**2).sum(axis=0) - along.sum(axis=0), 0)
    evidences = [_best_evidence(energies, along[:, one], outside[one], len(columns)) for one in range(columns.shape[1])]
    return float(np.mean(evidences))


def _spectrum(features: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values, and the squared lengths of the columns along the left singular vectors."""
    if len(features) > features.shape[1]:  # many cases: from the small matrix of the dimensions
        energies, right = np.linalg.eigh(features.T @ features)
        kept = energies > energies.max() * 1e-12
        return energies[kept], (right[:, kept].T @ (features.T @ columns)) ** 2 / energies[kept, None]
    energies, left = np.linalg.eigh(features @ features.T)
    kept = energies > energies.max() * 1e-12
    return energies[kept], (left[:, kept].T @ columns) ** 2


def _best_evidence(energies: np.ndarray, along: np.ndarray, outside: float, cases: int) -> float:
    """Maximum over t of the log evidence per case.

    Args:
        energies: squared singular values of the embeddings.
        along: squared lengths of the column along their directions.
        outside: what is left of its squared length.
        cases: N.
    """

    def loss(log_ratio: float) -> float:
        return -_evidence(np.exp(log_ratio), energies, along, outside, cases)

    centre = np.log(energies.mean()) if len(energies) else 0.0
    grid = centre + np.log(10) * np.linspace(-_DECADES, _DECADES, 4 * _DECADES + 1)
    start = int(np.argmin([loss(one) for one in grid]))
    low, high = grid[max(start - 1, 0)], grid[min(start + 1, len(grid) - 1)]
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-8})
    return -min(float(found.fun), loss(grid[start]))


def _evidence(ratio: float, energies: np.ndarray, along: np.ndarray, outside: float, cases: int) -> float:
    """Log density per case of y ~ N(0, (I + F F' / t) / beta) at the best beta."""
    misfit = float((along * ratio / (ratio + energies)).sum()) + outside
    beta = cases / max(misfit, sys.float_info.min)
    determinant = float(np.log1p(energies / ratio).sum())
    return 0.5 * (np.log(beta) - 1 - np.log(2 * np.pi)) - 0.5 * determinant / cases
