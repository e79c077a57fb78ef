"""Alignment and uniformity on the hypersphere (Wang and Isola, ICML 2020)."""

from __future__ import annotations

import numpy as np

from monai_ssl_transfer.errors import DataError

_CHUNK = 1024


def unit(vectors: np.ndarray) -> np.ndarray:
    """(N, D) float64 of length 1; a row of zeros stays zero."""
    rows = np.asarray(vectors, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def alignment(first: np.ndarray, second: np.ndarray, alpha: float = 2.0) -> float:
    """Mean distance of the two views of an image, to the power of alpha; features scaled to length 1.

    Args:
        first: (N, D) features of a random view of each image.
        second: (N, D) features of another view.
        alpha: the paper's 2.

    Returns:
        0 (views of an image fall together) to 4 (opposite, at alpha 2).

    Raises:
        DataError: if the numbers of images differ.
    """
    if np.shape(first) != np.shape(second) or not len(first):
        raise DataError("Alignment needs two views of every image, of the same encoder.")
    return float((np.linalg.norm(unit(first) - unit(second), axis=1) ** alpha).mean())


def uniformity(vectors: np.ndarray, t: float = 2.0) -> float:
    """log of the mean Gaussian potential exp(-t d^2) over all pairs of images; features scaled to length 1.

    Args:
        vectors: (N, D).
        t: the paper's 2.

    Returns:
        0 (all images in one point) down to about -4 (spread evenly over the sphere, at t 2).

    Raises:
        DataError: for fewer than 2 images.
    """
    if len(vectors) < 2:
        raise DataError(f"Uniformity needs at least 2 images and got {len(vectors)}: give more images.")
    rows, total = unit(vectors), 0.0
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        squared = (part**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2 * part @ rows.T
        potential = np.exp(-t * np.maximum(squared, 0))
        potential[np.arange(len(part)), start + np.arange(len(part))] = 0  # an image is no pair with itself
        total += float(potential.sum())
    return float(np.log(total / (len(rows) * (len(rows) - 1))))
