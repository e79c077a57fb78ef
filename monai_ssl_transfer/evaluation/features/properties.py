"""Plain properties of an image that need no reader: how bright, how sharp, how much of it is body."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
_BINS = 64


@dataclass(frozen=True)
class Property:
    """A quantity of an image.

    Args:
        name: short, for tables.
        title: for readers.
        unit: "" for shares and ratios.
    """

    name: str
    title: str
    unit: str = ""


def entropy(values: np.ndarray, low: float, high: float) -> float:
    """Entropy of the histogram of 64 bins in bits; values beyond the ends count in the outer bins."""
    counts = np.histogram(np.clip(values, low, high), _BINS, (low, high))[0].astype(np.float64)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum())


def gradient(plane: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Length of the gradient at every pixel, per unit of the spacing (row, column)."""
    if min(plane.shape) < 2:
        return np.zeros(plane.shape)
    down, across = np.gradient(plane, *spacing)
    return np.hypot(down, across)


def noise(plane: np.ndarray, inside: np.ndarray) -> float:
    """Standard deviation of the noise from the Laplacian of Laplacians (Immerkaer, CVIU 64:300-302, 1996).

    Args:
        plane: (H, W) float.
        inside: (H, W) bool, the pixels that count; all where there are none.
    """
    fine = np.abs(cv2.filter2D(plane.astype(np.float32), -1, _IMMERKAER, borderType=cv2.BORDER_REFLECT_101))
    return float(np.sqrt(np.pi / 2) / 6 * (fine[inside].mean() if inside.any() else fine.mean()))


def mirror_symmetry(plane: np.ndarray) -> float:
    """Correlation of a plane with its mirror image left to right, -1 to 1; 1 where it is flat."""
    centred = plane.astype(np.float64) - plane.mean()
    below = float((centred**2).sum())
    return float((centred * centred[:, ::-1]).sum()) / below if below > 0 else 1.0
