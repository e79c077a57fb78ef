"""One axial picture of each judged volume: contours of truth and prediction for the page of overlays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel import orientations
from PIL import Image, ImageColor
from scipy.ndimage import binary_opening, binary_propagation
from torch import Tensor

from monai_ssl_transfer.data.volumes.intensities import is_hounsfield
from monai_ssl_transfer.evaluation.features.svg import COLOURS, MORE
from monai_ssl_transfer.evaluation.overlay_drawing import (
    LONGEST_SIDE,
    Colour,
    at_size,
    captioned,
    contour,
    dashed_contour,
    jpeg_bytes,
)
from monai_ssl_transfer.evaluation.overlay_page import Drawing, OverlayPage, colour_key
from monai_ssl_transfer.evaluation.segmentation import members
from monai_ssl_transfer.evaluation.segmentation_report import (
    SegmentationReport,
    case_name,
    label_volume,
    voxel_spacing,
)
from monai_ssl_transfer.views.windows import channel_windows

# From the end, because the bright ones are seen best on grey and black.
CLASS_COLOURS: tuple[Colour, ...] = tuple(
    ImageColor.getrgb(one)[:3]  # type: ignore[misc]
    for one in (*reversed(COLOURS), *MORE[len(COLOURS) :])
)
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class VolumeSlice:
    """An axial slice in radiological orientation: rows to posterior, columns to the patient's left.

    Args:
        image: (R, C) of the first modality, as the network's preprocessing leaves it.
        truth: (R, C) label values.
        prediction: (R, C) label values.
        spacing: mm of rows and columns.
        place: its number among all slices, counted from the feet, and their count.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, float]
    place: str


class VolumeOverlayPage(OverlayPage):
    """MONAI handler for the evaluation of volumes: ``overlays.html`` with one axial slice of each.

    It is the slice with the most true foreground; of a volume whose truth is empty, that with the most wrong pixels.
    Nothing but the picture is kept of a volume.

    Args:
        report: that of the `CaseSegmentationMetric` of the same engine, which must be attached before.
        output_dir: where the page goes.
        channels: of the network's input; of HU, its first window is that of the pictures, others are shown by
            percentiles of the slice.
        examples: volumes of each kind.
        case_key: item of the batch that names the case.
        pictures: also keep every picture in ``overlays/``, as `OverlayPage` does.
    """

    def __init__(
        self,
        report: SegmentationReport,
        output_dir: str | Path,
        channels: str = "windows",
        examples: int = 6,
        case_key: str = "case",
        pictures: bool = False,
    ) -> None:
        super().__init__(report, output_dir, examples, case_key, pictures)
        self.classes = report.classes
        self.window: tuple[float, float] | None = None
        if is_hounsfield(channels):
            first = channel_windows(channels)[0]
            self.window = first.lower, first.upper

    def case_of(self, item: Mapping[str, Any], found: Mapping[str, Any]) -> str:
        """Name of a case, as the metric writes it."""
        return case_name(item, found, self.case_key)

    def draw(self, found: Mapping[str, Any]) -> Drawing:
        """The picture of one volume, from "image" (modalities, R, C, Z) with an affine, "label" and "pred"."""
        one = shown_slice(found["image"], found["label"], found["pred"], self.classes)
        return Drawing(slice_jpeg(one, self.classes, self.window), one.place)

    def key(self, count: int, mean: str) -> str:
        """HTML that tells what the page shows."""
        names = " ".join(colour_key(name, _colour(number)) for number, name in enumerate(self.classes))
        return (
            f"{names} solid: truth, dashed: prediction. {count} volumes, mean Dice {mean} of whole volumes; shown are "
            "the best, those around the median, and the worst, each in its slice with the most true foreground. The "
            "patient's right is on the left."
        )

    def numbers(self, metrics: Any) -> str:
        """The metrics of one volume and class in words."""
        surfaces = "" if np.isnan(metrics.hd95) else f", HD95 {metrics.hd95:.1f} mm, NSD {metrics.nsd:.3f}"
        return (
            f"Dice {metrics.dice:.3f}, IoU {metrics.iou:.3f}{surfaces}, {metrics.predicted_ml:.4g} ml predicted of "
            f"{metrics.true_ml:.4g} ml"
        )


def shown_slice(
    image: MetaTensor, truth: Tensor, prediction: Tensor, classes: Mapping[str, Sequence[int]]
) -> VolumeSlice:
    """Choose the axial slice of a volume that is shown.

    Args:
        image: (modalities, three axes of any orientation) with an affine.
        truth: (1, the same axes) label values.
        prediction: like ``truth``.
        classes: label values by class.

    Returns:
        The slice with the most foreground of any class, in the truth; where there is none, in the prediction, which is
        wrong there; without either, the middle one.
    """
    spacing = voxel_spacing(image)
    affine = np.asarray(image.affine.cpu(), dtype=float).reshape(-1, 4, 4)[0]
    change = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("PLS"))
    true, predicted = (orientations.apply_orientation(label_volume(one), change) for one in (truth, prediction))
    shown = orientations.apply_orientation(torch.as_tensor(image)[0].detach().cpu().numpy(), change)
    along = {int(change[axis, 0]): spacing[axis] for axis in range(3)}
    values = sorted({value for one in classes.values() for value in one})
    counts = members(true, values).sum(axis=(0, 1))
    if not counts.any():
        counts = members(predicted, values).sum(axis=(0, 1))
    number = int(counts.argmax()) if counts.any() else len(counts) // 2
    return VolumeSlice(
        np.array(shown[..., number], dtype=np.float32),
        np.array(true[..., number]),
        np.array(predicted[..., number]),
        (along[0], along[1]),
        f"slice {number + 1} of {len(counts)} from the feet",
    )


def slice_jpeg(
    one: VolumeSlice, classes: Mapping[str, Sequence[int]], window: tuple[float, float] | None = None
) -> bytes:
    """Draw the contours of every class on a slice: truth solid, prediction dashed.

    Args:
        one: slice.
        classes: label values by class; they may overlap.
        window: values that become black and white; None takes percentiles of the slice.

    Returns:
        JPEG bytes; the longest side of the slice has 480 pixels, all of one size in mm, with its classes named below.
    """
    extent = np.multiply(one.image.shape, one.spacing)
    rows, columns = (max(1, round(float(side))) for side in extent * LONGEST_SIDE / extent.max())
    grey = Image.fromarray(_grey(one.image, window)).resize((columns, rows), Image.Resampling.BILINEAR)
    drawn = np.array(grey.convert("RGB"))
    entries: list[tuple[str, Colour]] = [(f"{one.place}; solid: truth, dashed: prediction", (255, 255, 255))]
    for number, (name, values) in enumerate(classes.items()):
        true, predicted = (at_size(members(labels, values), (columns, rows)) for labels in (one.truth, one.prediction))
        drawn[contour(true, outside=True)] = _colour(number)
        drawn[dashed_contour(predicted)] = _colour(number)
        if true.any() or predicted.any():
            entries.append((name, _colour(number)))
    return jpeg_bytes(captioned(Image.fromarray(drawn), entries))


def _colour(number: int) -> Colour:
    return CLASS_COLOURS[number % len(CLASS_COLOURS)]


def _grey(values: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """(R, C) uint8; without a window, what was cut away around the body (zeros, as the mean of z-scores) is black."""
    outside = np.zeros(values.shape, bool)
    if window is None:
        zeros = values == 0
        outside = binary_propagation(binary_opening(zeros, iterations=2), mask=zeros)
        inside = values[~outside]
        window = tuple(np.percentile(inside, _PERCENTILES)) if inside.size else (0.0, 1.0)
    low, high = window
    shown = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.where(outside, 0, np.rint(shown * 255)).astype(np.uint8)
