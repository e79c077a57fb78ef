"""Less resolution of CT: a soft kernel, a coarse matrix, thick slices."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.corruptions.fields import pixels


def blur(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], sigma: float
) -> np.ndarray:
    """A softer reconstruction kernel.

    Args:
        volume: (Z, R, C) float32 HU.
        random: not used.
        spacing: not used.
        sigma: SD of a Gaussian within the slice, px at 512.
    """
    width = pixels(sigma, volume.shape[1:])
    return np.stack([cv2.GaussianBlur(one, (0, 0), width, borderType=cv2.BORDER_REFLECT) for one in volume])


def down_sampling(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], share: float
) -> np.ndarray:
    """A matrix with `share` of rows and columns (averaged), brought back (bilinear)."""
    rows, columns = (max(1, round(n * share)) for n in volume.shape[1:])
    back = volume.shape[:0:-1]
    small = [cv2.resize(one, (columns, rows), interpolation=cv2.INTER_AREA) for one in volume]
    return np.stack([cv2.resize(one, back, interpolation=cv2.INTER_LINEAR) for one in small])


def slice_thickness(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], added: float
) -> np.ndarray:
    """Thicker slices at the same positions (overlapping, as many as before): a box of `added` mm across the slices.

    Between slices the volume is taken as linear. Labels keep their places.

    Raises:
        DataError: a single slice, or an unknown distance of slices.
    """
    if len(volume) < 2 or not spacing[0] > 0:
        raise DataError("slice_thickness needs neighbouring slices and their distance: leave it out for single slices.")
    weights = _box(added / spacing[0])
    reach = len(weights) // 2
    padded = np.concatenate([volume[:1].repeat(reach, 0), volume, volume[-1:].repeat(reach, 0)])
    return sum(weight * padded[i : i + len(volume)] for i, weight in enumerate(weights)).astype(np.float32)


def _box(width: float) -> np.ndarray:
    """Weights of slices for a box of `width` slice distances over linear interpolation; they add up to 1."""
    reach = int(np.ceil(width / 2)) + 1

    def area(x: np.ndarray) -> np.ndarray:  # of the triangle on [-1, 1], up to x
        x = np.clip(x, -1, 1)
        return np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)

    offsets = np.arange(-reach, reach + 1)
    return ((area(width / 2 - offsets) - area(-width / 2 - offsets)) / width).astype(np.float32)
