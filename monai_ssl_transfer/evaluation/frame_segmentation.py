"""Segmentation quality of one photograph: Dice, IoU, precision, recall, HD95 in pixels, and its lesions one by one.

Empty masks, for every class of every photograph:

| prediction | truth | Dice | IoU | precision | recall | HD95 |
|---|---|---|---|---|---|---|
| empty | empty | 1 | 1 | 1 | 1 | 0 px |
| empty | not empty (a missed lesion) | 0 | 0 | 0 | 0 | diagonal of the photograph in px |
| not empty | empty (an invented lesion) | 0 | 0 | 0 | 0 | diagonal of the photograph in px |

so that no metric leaves the range from 0 to 1, and a photograph that shows nothing counts like every other.

Lesions: a lesion is a set of pixels that touch each other through a side or a corner. A lesion of the truth is *found*
when the prediction overlaps it by one pixel or more; a predicted lesion is *false* when it overlaps no pixel of the
truth. Sets of fewer than `MINIMUM_AREA` pixels are no lesions, on either side: masks that were stored as JPEG have
single pixels that nobody drew (13 of 104 photographs of Kvasir-SEG). The metrics of the table above count every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label as connected

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.segmentation import compute_surface_metrics

MINIMUM_AREA = 10
"""Pixels; a smaller connected set is no lesion."""
_SIDES_AND_CORNERS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class FrameMetrics:
    """What is known about one class in one photograph.

    Args:
        dice: 2 |A and B| / (|A| + |B|).
        iou: |A and B| / |A or B|.
        precision: |A and B| / |A|, A being the prediction.
        recall: |A and B| / |B|, B being the truth.
        hd95: larger one of the two directed 95th percentiles of contour distances, pixels (nan where not asked for).
        lesions: lesions of the truth.
        lesions_found: those that the prediction overlaps.
        false_lesions: predicted lesions that overlap no truth.
        predicted_pixels: size of the prediction.
        true_pixels: size of the truth.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    hd95: float
    lesions: int
    lesions_found: int
    false_lesions: int
    predicted_pixels: int
    true_pixels: int


def compute_frame_metrics(
    prediction: np.ndarray,
    truth: np.ndarray,
    class_names: Sequence[str] = ("background", "polyp"),
    surfaces: bool = True,
    minimum_area: int = MINIMUM_AREA,
) -> dict[str, FrameMetrics]:
    """Compare two label maps at the native size of their photograph, class by class.

    Args:
        prediction: (rows, columns) label map; label i is ``class_names[i]``.
        truth: label map of the same shape.
        class_names: the background first; it is not measured.
        surfaces: also compute HD95 (else it is nan).
        minimum_area: pixels of the smallest lesion.

    Returns:
        One `FrameMetrics` per class but the background.

    Raises:
        DataError: when the shapes differ, a map has not two axes, or a label has no class.

    Source:
        Maier-Hein, Reinke et al., Metrics reloaded, Nature Methods 2024.
    """
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise DataError(
            f"a prediction of shape {prediction.shape} cannot be compared with a mask of shape {truth.shape}: "
            "bring the prediction back to the size of its photograph."
        )
    highest = max(int(prediction.max(initial=0)), int(truth.max(initial=0)))
    if highest >= len(class_names):
        raise DataError(
            f"label {highest} has no class among {', '.join(class_names)}: give class_names and masks to match."
        )
    return {
        name: _binary_metrics(prediction == index, truth == index, surfaces, minimum_area)
        for index, name in enumerate(class_names)
        if index > 0
    }


def _binary_metrics(a: np.ndarray, b: np.ndarray, surfaces: bool, minimum_area: int) -> FrameMetrics:
    size_a, size_b, both = int(np.count_nonzero(a)), int(np.count_nonzero(b)), int(np.count_nonzero(a & b))
    counts = (*count_lesions(a, b, minimum_area), size_a, size_b)
    if size_a == 0 or size_b == 0:
        agreed = float(size_a == size_b)
        distance = (1.0 - agreed) * float(np.hypot(*a.shape)) if surfaces else float("nan")
        return FrameMetrics(agreed, agreed, agreed, agreed, distance, *counts)
    distance = compute_surface_metrics(a, b, (1.0, 1.0), 0.0)[0] if surfaces else float("nan")
    dice, iou = 2 * both / (size_a + size_b), both / (size_a + size_b - both)
    return FrameMetrics(dice, iou, both / size_a, both / size_b, distance, *counts)


def count_lesions(prediction: np.ndarray, truth: np.ndarray, minimum_area: int = MINIMUM_AREA) -> tuple[int, int, int]:
    """Count lesions by the rule at the head of this file.

    Args:
        prediction: (rows, columns) bool.
        truth: bool of the same shape.
        minimum_area: pixels of the smallest lesion.

    Returns:
        (lesions of the truth, those found, predicted lesions that are false).
    """
    true_overlaps = _overlaps_of_lesions(truth, prediction, minimum_area)
    predicted_overlaps = _overlaps_of_lesions(prediction, truth, minimum_area)
    found = int(np.count_nonzero(true_overlaps))
    return len(true_overlaps), found, int(np.count_nonzero(predicted_overlaps == 0))


def _overlaps_of_lesions(mask: np.ndarray, other: np.ndarray, minimum_area: int) -> np.ndarray:
    """Pixels that each lesion of a mask shares with the other mask."""
    numbers, count = connected(mask, structure=_SIDES_AND_CORNERS)
    areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    shared = np.bincount(numbers[other].ravel(), minlength=count + 1)[1:]
    return shared[areas >= minimum_area]
