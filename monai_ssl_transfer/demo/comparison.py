"""Two arms under one budget, seed by seed: the paired difference and its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PairedDifference:
    """Mean of ``second - first`` over seeds with a Student-t interval.

    Args:
        mean: mean difference, in the unit of the metric.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        seeds: number of pairs.
    """

    mean: float
    low: float
    high: float
    seeds: int

    def verdict(self, first: str, second: str) -> str:
        """Say in one sentence what the interval allows to say, and no more."""
        interval = f"{self.mean:+.3f} Dice, 95 % interval {self.low:+.3f} to {self.high:+.3f}, {self.seeds} seeds"
        if self.low > 0:
            return f"{second} is better than {first} ({interval})."
        if self.high < 0:
            return f"{second} is worse than {first} ({interval})."
        return f"no difference between {second} and {first} is shown ({interval})."


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> PairedDifference:
    """Compare two arms whose values share their seeds.

    Args:
        first: metric of the first arm, one value per seed.
        second: metric of the second arm, in the same order.
        confidence: level of the interval.

    Raises:
        ValueError: the arms differ in length or have fewer than two seeds.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"a paired comparison needs two arms of equal length >= 2, got {len(first)} and {len(second)}")
    difference = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    mean, error = float(difference.mean()), float(stats.sem(difference))
    half = error * float(stats.t.ppf((1 + confidence) / 2, df=len(difference) - 1))
    return PairedDifference(mean, mean - half, mean + half, len(difference))
