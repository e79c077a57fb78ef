"""The populations that the RadNet paper put between two real ones: recomputed to show what they are, never as runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monai_ssl_transfer.study.declaration import Interpolation


def interpolated_population(
    interpolation: Interpolation, smaller: Sequence[float], larger: Sequence[float]
) -> list[float]:
    """Return the made-up values of a population.

    The mean lies on the straight line through the two real means over the number of images; the spread is that of a
    line whose slope and intercept have errors taken as independent, from the two population standard deviations; the
    values are the runs of the larger real population, moved and stretched to this mean and spread.

    Args:
        interpolation: sizes of the two, and the size in question.
        smaller: runs of the initialisation with fewer images.
        larger: runs of the other one.

    Returns:
        As many values as ``larger`` has; they carry no information of their own.
    """
    x1, x2 = interpolation.sizes
    first, second = np.asarray(smaller, float), np.asarray(larger, float)
    slope = (second.mean() - first.mean()) / (x2 - x1)
    mean = second.mean() + slope * (interpolation.at - x2)
    slope_variance = (first.var() + second.var()) / (x2 - x1) ** 2
    spread = math.sqrt(second.var() + slope_variance * (x2**2 + interpolation.at**2))
    return [float(value) for value in mean + (second - second.mean()) / second.std() * spread]
