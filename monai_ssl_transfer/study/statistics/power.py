"""How small a difference a number of seeds can find."""

from __future__ import annotations

import math

from scipy import optimize, special, stats


def noncentral_t_below(t: float, degrees: float, noncentrality: float) -> float:
    """Return the probability that a noncentral t is at most ``t``; scipy's series fails only far out in its tails."""
    found = float(special.nctdtr(degrees, noncentrality, t))
    return found if math.isfinite(found) else float(t > noncentrality)


def power_of(difference: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Return the probability that a two-sided t test with n runs on either side finds a true difference.

    Args:
        difference: true difference of the means.
        sd: standard deviation between seeds, the same on both sides.
        n: runs on either side, at least 2.
        alpha: of the test.
    """
    degrees = 2 * n - 2
    noncentrality = abs(difference) / sd * math.sqrt(n / 2)
    limit = float(stats.t.isf(alpha / 2, degrees))
    upper = 1 - noncentral_t_below(limit, degrees, noncentrality)
    return upper + noncentral_t_below(-limit, degrees, noncentrality)


def smallest_difference(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the true difference that n runs on either side find with the given probability.

    Args:
        sd: standard deviation between seeds seen in a pilot; with few seeds it is itself uncertain (of four, the true
            one may be 0.6 to 3.7 times as large).
        n: runs on either side; below 2 nothing can be found.
        alpha: of the two-sided test; divide it by the number of tests for the hardest step of Holm.
        power: probability wanted.

    Returns:
        A difference in the unit of ``sd``; not a number for fewer than two runs.
    """
    if n < 2 or not math.isfinite(sd):
        return float("nan")
    if sd == 0:
        return 0.0
    high = 1.0
    while power_of(high, 1.0, n, alpha) < power:
        high *= 2
        if high > 1e4:
            return float("nan")
    return sd * float(optimize.brentq(lambda d: power_of(d, 1.0, n, alpha) - power, 0.0, high, xtol=1e-10))
