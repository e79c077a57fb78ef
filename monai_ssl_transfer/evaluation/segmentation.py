"""Segmentation quality of one case: Dice, IoU, HD95 and normalized surface Dice, in voxels of the original image.

Empty masks, for every class of every case:

| prediction | truth | Dice | IoU | NSD | HD95 |
|---|---|---|---|---|---|
| empty | empty | 1 | 1 | 1 | 0 mm |
| empty | not empty (or the reverse) | 0 | 0 | 0 | diagonal of the volume in mm |

so that a missed or an invented tumour counts with the worst value that the volume allows and does not vanish
from the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from monai_ssl_transfer.errors import DataError

LIVER_CLASSES: dict[str, tuple[int, ...]] = {"liver": (1, 2), "tumour": (2,)}
"""Label values by class. "liver" includes its tumours, as in the LiTS challenge; {"liver": (1,)} leaves them out."""


@dataclass(frozen=True)
class CaseMetrics:
    """What is known about one class in one case.

    Args:
        dice: 2 |A and B| / (|A| + |B|).
        iou: |A and B| / |A or B|.
        hd95: larger one of the two directed 95th percentiles of surface distances, mm.
        nsd: share of both surfaces that lies within the tolerance of the other one.
        predicted_ml: volume of the prediction, ml.
        true_ml: volume of the truth, ml.
    """

    dice: float
    iou: float
    hd95: float
    nsd: float
    predicted_ml: float
    true_ml: float


def compute_case_metrics(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float],
    classes: Mapping[str, Sequence[int]] | None = None,
    tolerance: float = 2.0,
    surfaces: bool = True,
) -> dict[str, CaseMetrics]:
    """Compare two label volumes class by class.

    Args:
        prediction: label volume, any number of axes.
        truth: label volume of the same shape.
        spacing: mm per voxel along each axis.
        classes: label values by class name; `LIVER_CLASSES` by default.
        tolerance: distance that the normalized surface Dice forgives, mm; 2 mm is about what two readers
            differ by at the border of a liver.
        surfaces: also compute HD95 and NSD (else they are nan).

    Returns:
        One `CaseMetrics` per class.

    Raises:
        DataError: when shapes or the number of spacings differ.

    Source:
        Maier-Hein, Reinke et al., Metrics reloaded, Nature Methods 2024; Nikolov et al., 2018 (surface Dice).
    """
    if prediction.shape != truth.shape or len(spacing) != truth.ndim:
        raise DataError(
            f"a prediction of shape {prediction.shape} cannot be compared with a label of shape {truth.shape} "
            f"and {len(spacing)} spacings: bring the prediction back to the grid of its image."
        )
    selected = LIVER_CLASSES if classes is None else classes
    voxels = np.asarray(spacing, dtype=float)
    return {
        name: _binary_metrics(members(prediction, values), members(truth, values), voxels, tolerance, surfaces)
        for name, values in selected.items()
    }


def members(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Bool mask of the voxels that have one of some label values."""
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask


def _binary_metrics(a: np.ndarray, b: np.ndarray, spacing: np.ndarray, tolerance: float, surfaces: bool) -> CaseMetrics:
    size_a, size_b, both = int(np.count_nonzero(a)), int(np.count_nonzero(b)), int(np.count_nonzero(a & b))
    millilitres = float(np.prod(spacing)) / 1000.0
    if size_a + size_b == 0:
        return CaseMetrics(1.0, 1.0, 0.0, 1.0, 0.0, 0.0)
    dice, iou = 2 * both / (size_a + size_b), both / (size_a + size_b - both)
    if size_a == 0 or size_b == 0:
        hd95, nsd = float(np.linalg.norm(np.asarray(a.shape) * spacing)), 0.0
    elif surfaces:
        hd95, nsd = compute_surface_metrics(a, b, spacing, tolerance)
    if not surfaces:
        hd95 = nsd = float("nan")
    return CaseMetrics(dice, iou, hd95, nsd, size_a * millilitres, size_b * millilitres)


def compute_surface_metrics(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | np.ndarray, tolerance: float
) -> tuple[float, float]:
    """HD95 and normalized surface Dice of two non-empty masks.

    Surfaces are the voxels that touch the outside through a face; the border of the image counts as outside.
    Distances run between voxel centres and are found with a k-d tree of surface points, so that memory follows the
    surface and not the volume.

    Args:
        prediction: bool, not empty.
        truth: bool of the same shape, not empty.
        spacing: mm per voxel along each axis.
        tolerance: mm.

    Returns:
        (HD95 in mm, normalized surface Dice).
    """
    points_a, points_b = _surface_points(prediction, spacing), _surface_points(truth, spacing)
    to_b = cKDTree(points_b).query(points_a)[0]
    to_a = cKDTree(points_a).query(points_b)[0]
    hd95 = max(float(np.percentile(to_b, 95)), float(np.percentile(to_a, 95)))
    within = np.count_nonzero(to_b <= tolerance) + np.count_nonzero(to_a <= tolerance)
    return hd95, within / (len(to_a) + len(to_b))


def _surface_points(mask: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Coordinates in mm, (points, axes); the erosion sees only the bounding box."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    inside = mask[tuple(box)]
    surface = inside & ~binary_erosion(inside)
    start = np.asarray([s.start for s in box])
    return (np.argwhere(surface) + start) * np.asarray(spacing, dtype=float)
