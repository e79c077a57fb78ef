"""Light and colour of photographs: exposure, contrast, gamma, white balance, saturation, vignette."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.exposure import adjust_gamma

from monai_ssl_transfer.views.corruptions.fields import lit_part

_GREY = np.array([0.299, 0.587, 0.114], np.float32)
_DISPLAY = 2.2


def _either_way(random: np.random.Generator) -> int:
    return 1 if random.random() < 0.5 else -1


def brightness(frame: np.ndarray, random: np.random.Generator, stops: float) -> np.ndarray:
    """Exposure in linear light (display gamma 2.2), too long or too short; what is too bright is cut off.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: chooses the way.
        stops: factors of two.
    """
    return frame * np.float32(2 ** (_either_way(random) * stops / _DISPLAY))


def contrast(frame: np.ndarray, random: np.random.Generator, factor: float) -> np.ndarray:
    """Pull all pixels of the view towards its mean grey."""
    view = lit_part(frame)
    mean = float(((frame @ _GREY) * view).sum() / view.sum())
    return mean + (frame - mean) * np.float32(factor)


def gamma(frame: np.ndarray, random: np.random.Generator, exponent: float) -> np.ndarray:
    """Another tone curve, darker (`exponent`) or brighter (its inverse)."""
    return adjust_gamma(frame, exponent ** _either_way(random))


def white_balance(frame: np.ndarray, random: np.random.Generator, amount: float) -> np.ndarray:
    """Red up and blue down by `amount`, or the other way round."""
    signed = _either_way(random) * amount
    return frame * np.array([1 + signed, 1, 1 - signed], np.float32)


def saturation(frame: np.ndarray, random: np.random.Generator, share: float) -> np.ndarray:
    """Colours paler or stronger by `share` around the grey picture."""
    grey = (frame @ _GREY)[..., None]
    return grey + (frame - grey) * np.float32(1 + _either_way(random) * share)


def vignette(frame: np.ndarray, random: np.random.Generator, lost: float) -> np.ndarray:
    """Light falls off with the square of the distance from the middle of the view, by `lost` in its corner."""
    x, y, width, height = cv2.boundingRect((lit_part(frame) > 0.5).astype(np.uint8))
    rows, columns = np.ogrid[: frame.shape[0], : frame.shape[1]]
    across = ((rows - y - (height - 1) / 2) / max(height, 1)) ** 2 + (
        (columns - x - (width - 1) / 2) / max(width, 1)
    ) ** 2
    return frame * np.clip(1 - lost * 2 * across, 0, 1).astype(np.float32)[..., None]
