"""H-score: how much of the embeddings' spread lies between the classes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from monai_ssl_transfer.evaluation.transferability.columns import embeddings_and_columns


def h_score(vectors: Tensor, targets: Tensor, shrunk: bool = True) -> float:
    """tr(cov(f)^-1 cov(E[f | y])) (Bao et al., ICIP 2019).

    The inverse of the covariance is dominated by chance where there are not many more cases than dimensions. The shrunk
    score (Ibrahim et al., ECML PKDD 2022) takes Ledoit and Wolf's estimate of the covariance and scales the
    spread of the class means by one minus its shrinkage.

    Args:
        vectors: (N, D) embeddings.
        targets: (N,) int64 classes; of (N, C) findings, the mean over the findings of the score with and without.
        shrunk: False: the plain score of Bao et al., with the pseudo-inverse.

    Returns:
        The score, at most the number of classes less one; higher is better.

    Raises:
        DataError: lengths disagree, or no class tells cases apart.
    """
    features, columns = embeddings_and_columns(vectors, targets)
    features = features - features.mean(axis=0)
    inverse, kept = _inverse_covariance(features, shrunk)
    if targets.ndim == 1:
        return kept * _between(features, columns, inverse)
    pairs = [np.stack([column, 1 - column], axis=1) for column in columns.T]
    return kept * float(np.mean([_between(features, pair, inverse) for pair in pairs]))


def _inverse_covariance(features: np.ndarray, shrunk: bool) -> tuple[np.ndarray, float]:
    """The inverse, and one minus the shrinkage."""
    if not shrunk:
        covariance = features.T @ features / (len(features) - 1)
        return np.linalg.pinv(covariance, rcond=1e-12, hermitian=True), 1.0
    from sklearn.covariance import ledoit_wolf

    covariance, shrinkage = ledoit_wolf(features, assume_centered=True)
    return np.linalg.pinv(covariance, rcond=1e-12, hermitian=True), 1 - float(shrinkage)


def _between(features: np.ndarray, columns: np.ndarray, inverse: np.ndarray) -> float:
    """Trace of the inverse covariance times the covariance of the class means, each class counted by its cases."""
    counts = columns.sum(axis=0)
    means = columns.T @ features / counts[:, None]
    spread = (means * counts[:, None]).T @ means / (len(features) - 1)
    return float((inverse * spread).sum())
