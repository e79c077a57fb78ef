"""RGB operations of one view on the CPU.

Brightness, contrast, saturation and grey are 3x4 matrices. A factor of at most 1 mixes a picture with something inside
[0, 1], so nothing has to be clamped and the matrix waits to be multiplied into the next one. That gives the numbers of
the step by step definition in `colour`, in one to three passes instead of five.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from monai_ssl_transfer.views.colour import BRIGHTNESS, CONTRAST, GREY_WEIGHTS, HUE, SOLARIZE_THRESHOLD
from monai_ssl_transfer.views.parameters import ViewParameters
from monai_ssl_transfer.views.recipes import IMAGENET_MEAN, IMAGENET_STD, ViewRecipe

_GREY_ROW = np.array([*GREY_WEIGHTS, 0.0])
_GREY = np.stack([_GREY_ROW] * 3)
_NORMALISE = np.diag(1 / np.array(IMAGENET_STD)) @ np.c_[np.eye(3), -np.array(IMAGENET_MEAN)]


class PendingColour:
    """A picture and the colour matrix that is still to be applied to it.

    Args:
        picture: (S, S, 3) float32.
        scale: factor that brings the picture to [0, 1].
    """

    def __init__(self, picture: np.ndarray, scale: float) -> None:
        self.picture = picture
        self._matrix: np.ndarray | None = np.c_[np.eye(3) * scale, np.zeros(3)]

    def mean_grey(self) -> float:
        """Mean luma of the picture with the waiting matrix applied."""
        mean = np.array([*cv2.mean(self.picture)[:3], 1.0])
        return float(_GREY_ROW[:3] @ (mean[:3] if self._matrix is None else self._matrix @ mean))

    def multiply(self, matrix: np.ndarray) -> None:
        """Let a (3, 4) matrix wait behind those that already do."""
        if self._matrix is not None:
            matrix = matrix[:, :3] @ self._matrix + np.c_[np.zeros((3, 3)), matrix[:, 3]]
        self._matrix = matrix

    def apply(self, clamp: bool) -> np.ndarray:
        """Apply what waits; `clamp` to [0, 1] when a factor above 1 was part of it."""
        if self._matrix is not None:
            self.picture = cv2.transform(self.picture, self._matrix)
            self._matrix = None
        if clamp:
            np.clip(self.picture, np.float32(0), np.float32(1), out=self.picture)
        return self.picture

    def turn_hue(self, shift: float) -> None:
        """Shift the HSV hue by a fraction of a turn."""
        hsv = np.asarray(cv2.cvtColor(self.apply(clamp=False), cv2.COLOR_RGB2HSV), dtype=np.float32)
        hue = hsv[..., 0]
        np.add(hue, np.float32(360 * (shift % 1)), out=hue)
        np.subtract(hue, np.float32(360), out=hue, where=hue >= 360)
        self.picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _jitter(pending: PendingColour, order: list[int], factors: list[float]) -> None:
    for operation in order:
        factor = factors[operation]
        if operation == HUE:
            if factor:
                pending.turn_hue(factor)
            continue
        matrix = np.c_[np.eye(3) * factor, np.zeros(3)]
        if operation == CONTRAST:
            matrix[:, 3] = (1 - factor) * pending.mean_grey()
        elif operation != BRIGHTNESS:
            matrix += (1 - factor) * _GREY
        pending.multiply(matrix)
        if factor > 1:
            pending.apply(clamp=True)


def finish_rgb(
    resized: np.ndarray,
    view: ViewRecipe,
    parameters: ViewParameters,
    sample: int,
    blur: Callable[[np.ndarray], np.ndarray],
    out: np.ndarray,
) -> None:
    """Colour jitter, grey, blur, solarize and normalisation of one resized picture.

    Args:
        resized: (S, S, 3) float32 in [0, 255].
        view: recipe of the view.
        parameters: drawn parameters of the batch.
        sample: place in the batch.
        blur: the sample's blur, (S, S, 3) in and out.
        out: (3, S, S) float32, written.
    """
    pending = PendingColour(resized, 1 / 255)
    if view.interpolation == "bicubic":  # overshoots
        pending.apply(clamp=True)
    if parameters.jitter[sample]:
        _jitter(pending, parameters.order[sample].tolist(), parameters.factors[sample].tolist())
    if parameters.grayscale[sample]:
        pending.multiply(_GREY)
    picture = blur(pending.apply(clamp=False))
    if parameters.solarize[sample]:
        np.subtract(np.float32(1), picture, out=picture, where=picture >= np.float32(SOLARIZE_THRESHOLD))
    picture = cv2.transform(picture, _NORMALISE)
    for channel in range(3):
        cv2.extractChannel(picture, channel, out[channel])
