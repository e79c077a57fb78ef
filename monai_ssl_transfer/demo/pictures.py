"""Figures of the demo page: curves, and images with true and predicted contours, as embedded PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from skimage.measure import find_contours

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend must be chosen first
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TRUE_COLOUR = "#19c37d"
ARM_COLOURS = {"scratch": "#e8833a", "pretrained": "#3a8ee8"}


@dataclass(frozen=True)
class LabelledPicture:
    """One image to show.

    Args:
        title: what the reader sees above it.
        image: ``(rows, columns)`` grey values from 0 to 1, or ``(rows, columns, 3)`` uint8 RGB, upright.
        truth: ``(rows, columns)`` label map, 0 background.
        predictions: label map per arm.
        aspect: row spacing over column spacing.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]
    aspect: float = 1.0


def embedded(figure: Figure) -> str:
    """Return the figure as an ``<img>`` tag that needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def curves(pretraining: Mapping[str, Sequence[float]], transfer: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Draw two curves of the pretraining, and the validation Dice of every run of every arm.

    Args:
        pretraining: series by name, one value per epoch.
        transfer: per arm, one series of validation Dice per seed.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3))
    for axis, (name, values) in zip(axes, list(pretraining.items())[:2], strict=False):
        axis.plot(range(1, len(values) + 1), values, color="#555")
        axis.set(title=f"pretraining: {name}", xlabel="epoch")
    for arm, runs in transfer.items():
        for number, run in enumerate(runs):
            label = arm if number == 0 else None
            axes[2].plot(range(1, len(run) + 1), run, color=ARM_COLOURS[arm], alpha=0.8, label=label)
    axes[2].set(title="transfer: validation Dice", xlabel="validation", ylim=(0, 1))
    axes[2].legend()
    return embedded(figure)


def _contours(axis: Axes, labels: np.ndarray, colour: str, style: str) -> None:
    for level, width in ((1, 1.4), (2, 1.0)):
        for contour in find_contours((labels >= level).astype(float), 0.5):
            axis.plot(contour[:, 1], contour[:, 0], color=colour, linewidth=width, linestyle=style)


def contour_sheet(pictures: Sequence[LabelledPicture], file: Path) -> str:
    """Draw one row per image and one column per arm: the image with the true and the predicted contour.

    Args:
        pictures: what to show.
        file: the sheet is kept there as PNG, too.
    """
    arms = list(pictures[0].predictions)
    figure, axes = plt.subplots(
        len(pictures), len(arms), figsize=(4 * len(arms), 3.6 * len(pictures)), squeeze=False, facecolor="white"
    )
    for row, one in zip(axes, pictures, strict=True):
        for axis, arm in zip(row, arms, strict=True):
            axis.imshow(one.image, cmap="gray", vmin=0, vmax=1, aspect=one.aspect)
            _contours(axis, one.truth, TRUE_COLOUR, "-")
            _contours(axis, one.predictions[arm], ARM_COLOURS[arm], "--")
            axis.set_title(f"{one.title}: {arm}", fontsize=9)
            axis.axis("off")
    figure.savefig(file, dpi=80, bbox_inches="tight")
    return embedded(figure)
