"""How many directions of the feature space are used."""

from __future__ import annotations

import numpy as np

from monai_ssl_transfer.errors import DataError

_RANKME_EPSILON = 1e-7


def effective_rank(vectors: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of the centred features.

    Roy and Vetterli, EUSIPCO 2007, eq. 3. The mean is taken out first: it is a direction that all images share and
    that tells none of them apart.

    Args:
        vectors: (N, D).

    Returns:
        1 (all images on one line) to min(N - 1, D); 0 where all features are the same.

    Raises:
        DataError: for fewer than 2 images.
    """
    rows = _rows(vectors)
    return _exp_entropy(_singular(rows - rows.mean(axis=0)), 0.0)


def rankme(vectors: np.ndarray) -> float:
    """RankMe: as `effective_rank`, of the features as they are (Garrido et al., ICML 2023, eq. 1 and 2).

    Args:
        vectors: (N, D).

    Raises:
        DataError: for fewer than 2 images.
    """
    return _exp_entropy(_singular(_rows(vectors)), _RANKME_EPSILON)


def explained(vectors: np.ndarray) -> np.ndarray:
    """Share of the variance along each principal component, largest first, (min(N, D),); zeros without variance."""
    rows = _rows(vectors)
    squared = _singular(rows - rows.mean(axis=0)) ** 2
    return squared / squared.sum() if squared.sum() > 0 else squared


def _rows(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise DataError(f"A rank of features needs at least 2 images and got {len(rows)}: give more images.")
    return rows


def _singular(rows: np.ndarray) -> np.ndarray:
    found = np.linalg.svd(rows, compute_uv=False)
    # What rounding leaves of directions that are not there would count as many small ones.
    return np.where(found > found[0] * max(rows.shape) * np.finfo(np.float64).eps, found, 0.0)


def _exp_entropy(singular: np.ndarray, epsilon: float) -> float:
    if not singular.sum() > 0:
        return 0.0
    shares = singular / singular.sum() + epsilon
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
