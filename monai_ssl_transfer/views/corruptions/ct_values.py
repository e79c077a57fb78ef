"""Wrong HU: a calibration that is off, and values cut off by a window."""

from __future__ import annotations

import numpy as np

_LEVEL = 40


def hu_shift(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], shift: float
) -> np.ndarray:
    """Every value up or down by exactly `shift` HU (calibration, a wrong rescale intercept).

    Args:
        volume: (Z, R, C) float32 HU.
        random: chooses the way.
        spacing: not used.
        shift: HU.
    """
    return volume + np.float32(shift if random.random() < 0.5 else -shift)


def window_error(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], width: float, off: float
) -> np.ndarray:
    """Values cut off at a window around 40 HU that is `width` HU wide and `off` HU too high or too low."""
    level = _LEVEL + (off if random.random() < 0.5 else -off)
    return np.clip(volume, level - width / 2, level + width / 2)
