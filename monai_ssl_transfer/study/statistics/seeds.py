"""What some runs with different seeds say: their mean and spread, and how two initialisations differ."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from monai_ssl_transfer.study.statistics.power import noncentral_t_below

NAN = float("nan")


@dataclass(frozen=True)
class Summary:
    """Runs of one cell.

    Args:
        n: runs.
        mean: of the runs.
        sd: sample standard deviation (n - 1); not a number for one run.
        low: lower end of Student's t interval of the mean; not a number for one run.
        high: upper end of it.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A candidate against a reference, over independent runs of both.

    Args:
        candidate: summary of the candidate's runs.
        reference: summary of the reference's runs.
        value: candidate's mean minus the reference's.
        low: lower end of Welch's interval of the difference.
        high: upper end of it.
        p: two-sided p of Welch's t test, uncorrected.
        degrees: Welch-Satterthwaite degrees of freedom.
        g: Hedges' g, the difference in pooled standard deviations, corrected for few runs.
        g_low: lower end of the interval of g (noncentral t).
        g_high: upper end of it.

    Whatever cannot be computed (one run, no spread at all) is not a number.
    """

    candidate: Summary
    reference: Summary
    value: float
    low: float
    high: float
    p: float
    degrees: float
    g: float
    g_low: float
    g_high: float


def summarise(values: Sequence[float], level: float = 0.95) -> Summary:
    """Summarise the runs of one cell.

    Args:
        values: one per run, at least one.
        level: of the interval.

    Raises:
        ValueError: there is no run.
    """
    if len(values) == 0:
        raise ValueError("a cell without runs has no mean")
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return Summary(1, mean, NAN, NAN, NAN)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def compare(candidate: Sequence[float], reference: Sequence[float], level: float = 0.95) -> Difference:
    """Compare two initialisations over their runs by Welch's t test.

    Args:
        candidate: one value per run.
        reference: one value per run; the runs of the two are not paired.
        level: of the intervals.
    """
    a, b = summarise(candidate, level), summarise(reference, level)
    value = a.mean - b.mean
    if min(a.n, b.n) < 2 or _no_spread(a, b):
        return Difference(a, b, value, NAN, NAN, NAN, NAN, NAN, NAN, NAN)
    with warnings.catch_warnings():
        # one side may have no spread at all, such as a probe without randomness: its variance is exactly 0
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_ind(candidate, reference, equal_var=False)
    interval = test.confidence_interval(level)
    g, g_low, g_high = hedges_g(candidate, reference, level)
    return Difference(
        a, b, value, float(interval.low), float(interval.high), float(test.pvalue), float(test.df), g, g_low, g_high
    )


def hedges_g(candidate: Sequence[float], reference: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return Hedges' g and its interval.

    The pooled standard deviation assumes equal spreads. The interval holds those effects under which the observed t is
    not extreme (Steiger and Fouladi 1997), times the same correction (Hedges 1981), so it excludes 0 exactly when
    Student's t test does.

    Returns:
        g, lower end, upper end.
    """
    a, b = np.asarray(candidate, float), np.asarray(reference, float)
    degrees = len(a) + len(b) - 2
    pooled = math.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / degrees)
    scale = math.sqrt(1 / len(a) + 1 / len(b))
    t = float((a.mean() - b.mean()) / (pooled * scale))
    correction = math.exp(special.gammaln(degrees / 2) - special.gammaln((degrees - 1) / 2)) / math.sqrt(degrees / 2)
    tail = (1 - level) / 2
    low, high = (_noncentrality(t, degrees, at) for at in (1 - tail, tail))
    return t * scale * correction, low * scale * correction, high * scale * correction


def _noncentrality(t: float, degrees: int, at: float) -> float:
    """Noncentrality under which the probability of at most ``t`` is ``at``."""

    def excess(noncentrality: float) -> float:
        return noncentral_t_below(t, degrees, noncentrality) - at

    if abs(t) > 1e4:  # no spread worth the name: the distribution is a step in floating point
        return NAN
    width = 4.0 + abs(t)
    while excess(t - width) < 0 or excess(t + width) > 0:
        width *= 2
    return float(optimize.brentq(excess, t - width, t + width, xtol=1e-10))


def _no_spread(a: Summary, b: Summary) -> bool:
    """Whether both spreads are nothing but rounding."""
    return max(a.sd, b.sd) <= 1e-12 * max(abs(a.mean), abs(b.mean), 1e-300)
