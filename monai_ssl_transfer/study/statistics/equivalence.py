"""No worse than, and as good as: tests against a margin that was stated before the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from monai_ssl_transfer.study.statistics.seeds import NAN, summarise


@dataclass(frozen=True)
class Margin:
    """A candidate against a reference and a margin.

    Args:
        margin: largest difference that does not matter, in the metric's own unit.
        p_no_worse: one-sided p of "worse by the margin or more".
        p_equivalent: p of the two one-sided tests, the larger of both.
    """

    margin: float
    p_no_worse: float
    p_equivalent: float


def against_margin(
    candidate: Sequence[float], reference: Sequence[float], margin: float, larger_is_better: bool = True
) -> Margin:
    """Test non-inferiority and equivalence by Welch's t.

    Args:
        candidate: one value per run.
        reference: one value per run.
        margin: largest difference that does not matter, above 0; it must not be chosen from these runs.
        larger_is_better: of the metric.

    Raises:
        ValueError: the margin is not above 0.
    """
    if not margin > 0:
        raise ValueError("a margin is above 0")
    a, b = summarise(candidate), summarise(reference)
    if min(a.n, b.n) < 2 or a.sd + b.sd == 0:
        return Margin(margin, NAN, NAN)
    parts = a.sd**2 / a.n, b.sd**2 / b.n
    error = math.sqrt(sum(parts))
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (a.n - 1) + parts[1] ** 2 / (b.n - 1))
    gain = (a.mean - b.mean) * (1 if larger_is_better else -1)
    no_worse = float(stats.t.sf((gain + margin) / error, degrees))
    no_better = float(stats.t.cdf((gain - margin) / error, degrees))
    return Margin(margin, no_worse, max(no_worse, no_better))
