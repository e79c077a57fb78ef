"""How far classes lie apart in the feature space, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.uniformity import unit

_SILHOUETTE_IMAGES = 5000


@dataclass(frozen=True)
class Separability:
    """Numbers on labelled features.

    Args:
        silhouette: mean over images of (b - a) / max(a, b), cosine distances a to the own class and b to the nearest
            other one (Rousseeuw 1987): -1 to 1.
        fisher_ratio: variance between the classes over variance within them, trace(S_b) / trace(S_w), of the features
            scaled to length 1.
        class_distance: mean distance between the means of two classes over the mean distance of an image to the mean
            of its class.
    """

    silhouette: float
    fisher_ratio: float
    class_distance: float


def separability(vectors: np.ndarray, labels: Sequence[str] | np.ndarray, seed: int = 0) -> Separability:
    """Measure classes in the feature space.

    Args:
        vectors: (N, D).
        labels: (N,) classes.
        seed: draws 5,000 images for the silhouette, which needs all pairs, where there are more.

    Raises:
        DataError: for fewer than two classes, or no class with two images.
    """
    names, numbers = np.unique(np.asarray(labels), return_inverse=True)
    if not 2 <= len(names) < len(numbers):
        raise DataError(f"Separability needs two classes and more images than classes, and got {len(names)} classes.")
    rows = unit(vectors)
    means = np.stack([rows[numbers == number].mean(axis=0) for number in range(len(names))])
    counts = np.bincount(numbers)
    within = ((rows - means[numbers]) ** 2).sum()
    between = (counts * ((means - rows.mean(axis=0)) ** 2).sum(axis=1)).sum()
    apart = np.linalg.norm(means[:, None] - means[None], axis=2)[np.triu_indices(len(names), 1)].mean()
    spread = np.linalg.norm(rows - means[numbers], axis=1).mean()
    return Separability(
        silhouette=_silhouette(rows, numbers, seed),
        fisher_ratio=float(between / within) if within > 0 else float("inf"),
        class_distance=float(apart / spread) if spread > 0 else float("inf"),
    )


def _silhouette(rows: np.ndarray, numbers: np.ndarray, seed: int) -> float:
    from sklearn.metrics import silhouette_score

    drawn = np.arange(len(rows))
    if len(rows) > _SILHOUETTE_IMAGES:
        drawn = np.random.Generator(np.random.Philox(seed)).choice(len(rows), _SILHOUETTE_IMAGES, replace=False)
    return float(silhouette_score(rows[drawn], numbers[drawn], metric="cosine"))
