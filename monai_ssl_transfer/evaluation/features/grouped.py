"""Intervals of ratios of sums, by drawing whole patients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monai_ssl_transfer.evaluation.robustness import Measured

DRAWS = 2000
_LEVEL = (2.5, 97.5)


def drawn_ratios(
    above: np.ndarray, below: np.ndarray, groups: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """sum(above) / sum(below) of the images, and of draws of their patients with replacement (cluster bootstrap).

    Args:
        above: (N,).
        below: (N,), at least 0.
        groups: (N,) patients; all images of a patient are drawn together.
        draws: of the bootstrap; the same seed draws the same patients, so that two ratios can be subtracted.
        seed: of the bootstrap.

    Returns:
        (1 + draws,) float64, the images themselves first; nan where a draw has nothing below.
    """
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    random = np.random.Generator(np.random.Philox(seed))
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    weights = np.concatenate([np.ones((1, len(names))), counts])
    top = weights @ np.bincount(numbers, above, len(names))
    bottom = weights @ np.bincount(numbers, below, len(names))
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)


def measured(ratios: np.ndarray, groups: int) -> Measured:
    """The value and its 95 % percentile interval; no interval for one patient.

    Args:
        ratios: of `drawn_ratios`, or a difference or mean of several.
        groups: number of patients.
    """
    drawn = ratios[1:][np.isfinite(ratios[1:])]
    if groups < 2 or not len(drawn):
        return Measured(float(ratios[0]), math.nan, math.nan)
    low, high = np.percentile(drawn, _LEVEL)
    return Measured(float(ratios[0]), float(low), float(high))
