"""RGB operations of one view on the CPU.

Brightness, contrast, saturation and grey are 3x4 matrices. A factor of at most 1 mixes a picture with something inside
[0, 1], so nothing has to be clamped and the matrix waits to be multiplied into the next one. That gives the numbers of
the step by step definition in `colour`, in one to three passes instead of five.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD
from monai_ssl_transfer.views.colour import BRIGHTNESS, CONTRAST, GREY_WEIGHTS, HUE, SOLARIZE_THRESHOLD
from monai_ssl_transfer.views.parameters import ViewParameters

_GREY_ROW = np.array([*GREY_WEIGHTS, 0.0])
_GREY = np.stack([_GREY_ROW] * 3)
_IDENTITY = np.eye(3, 4)
_FIRST_OFFSET = np.eye(3, 4, k=3)
_NORMALISE = np.diag(1 / np.array(IMAGENET_STD)) @ (_IDENTITY - np.outer(IMAGENET_MEAN, [0, 0, 0, 1]))


class PendingColour:
    """A picture and the colour matrix that is still to be applied to it.

    Args:
        picture: (S, S, 3) float32.
        scale: factor that brings the picture to [0, 1].
    """

    def __init__(self, picture: np.ndarray, scale: float) -> None:
        self.picture = picture
        self._matrix: np.ndarray | None = _IDENTITY * scale

    def mean_grey(self) -> float:
        """Mean luma of the picture with the waiting matrix applied."""
        mean = np.array([*cv2.mean(self.picture)[:3], 1.0])
        return float(_GREY_ROW[:3] @ (mean[:3] if self._matrix is None else self._matrix @ mean))

    def multiply(self, matrix: np.ndarray) -> None:
        """Let a (3, 4) matrix wait behind those that already do."""
        if self._matrix is not None:
            shift = matrix[:, 3]
            matrix = matrix[:, :3] @ self._matrix
            matrix[:, 3] += shift
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
        hsv = cv2.cvtColor(self.apply(clamp=False), cv2.COLOR_RGB2HSV)
        # OpenCV takes hues beyond 360 degrees modulo 360, so the shift only has to be positive.
        turned = cv2.transform(hsv, _IDENTITY + 360 * (shift % 1) * _FIRST_OFFSET)
        self.picture = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB)


def _jitter(pending: PendingColour, order: list[int], factors: list[float]) -> None:
    for operation in order:
        factor = factors[operation]
        if operation == HUE:
            if factor:
                pending.turn_hue(factor)
            continue
        matrix = _IDENTITY * factor
        if operation == CONTRAST:
            matrix[:, 3] = (1 - factor) * pending.mean_grey()
        elif operation != BRIGHTNESS:
            matrix += (1 - factor) * _GREY
        pending.multiply(matrix)
        if factor > 1:
            pending.apply(clamp=True)


def finish_rgb(
    resized: np.ndarray,
    parameters: ViewParameters,
    sample: int,
    blur: Callable[[np.ndarray], np.ndarray],
    out: np.ndarray,
) -> None:
    """Colour jitter, grey, blur, solarize and normalisation of one resized picture.

    Args:
        resized: (S, S, 3) uint8.
        parameters: drawn parameters of the batch.
        sample: place in the batch.
        blur: the sample's blur, (S, S, 3) in and out.
        out: (3, S, S) float32, written.
    """
    pending = PendingColour(resized.astype(np.float32), 1 / 255)
    if parameters.jitter[sample]:
        _jitter(pending, parameters.order[sample].tolist(), parameters.factors[sample].tolist())
    if parameters.grayscale[sample]:
        pending.multiply(_GREY)
    picture = blur(pending.apply(clamp=False))
    if parameters.solarize[sample]:
        np.subtract(np.float32(1), picture, out=picture, where=picture >= np.float32(SOLARIZE_THRESHOLD))
    picture = cv2.transform(picture, _NORMALISE)
    cv2.mixChannels([picture], list(out), [0, 0, 1, 1, 2, 2])
