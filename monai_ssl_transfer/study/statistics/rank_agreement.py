"""Kendall's tau between two orders of a few encoders, with an exact p and no interval where none exists."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

EXACT = 8
"""Up to this number of encoders all orders are tried, ties or not."""
_SEED_DRAWS = 2000


@dataclass(frozen=True)
class Agreement:
    """Two orders of the same encoders.

    Args:
        n: encoders.
        tau: Kendall's tau-b; not a number where one side is constant.
        p: two-sided, of the hypothesis that every order is as likely.
        smallest_p: the smallest p that so many encoders can give.
        exact: whether all orders were tried.
    """

    n: int
    tau: float
    p: float
    smallest_p: float
    exact: bool


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement:
    """Compare two orders by Kendall's tau-b.

    Args:
        first: a value per encoder.
        second: a value per encoder, in the same order.

    Raises:
        ValueError: fewer than two encoders, or of different numbers.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    n = len(a)
    if n < 2 or n != len(b):
        raise ValueError("an order needs two encoders or more, the same on both sides")
    smallest = min(1.0, 2 / math.factorial(n))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Agreement(n, float("nan"), float("nan"), smallest, True)
    tau = float(stats.kendalltau(a, b).statistic)
    if n > EXACT:
        return Agreement(n, tau, float(stats.kendalltau(a, b).pvalue), smallest, False)
    return Agreement(n, tau, _exact_p(a, b), smallest, True)


def _exact_p(a: np.ndarray, b: np.ndarray) -> float:
    """Share of all orders of b whose pairs agree or disagree as much; the ties stay, and with them tau-b's divisor."""
    one, two = np.triu_indices(len(a), 1)
    signs = np.sign(a[one] - a[two])
    orders = b[np.array(list(itertools.permutations(range(len(b)))))]
    sums = np.abs((np.sign(orders[:, one] - orders[:, two]) * signs).sum(axis=1))
    return float(np.mean(sums >= abs((np.sign(b[one] - b[two]) * signs).sum())))


def over_single_seeds(score: Mapping[str, float], runs: Mapping[str, Sequence[float]], seed: int = 0) -> list[float]:
    """Return tau for one run of each encoder instead of their means: how much of it is the runs' own spread.

    Args:
        score: encoder -> value that ranks it beforehand.
        runs: encoder -> its runs, the same encoders.
        seed: of the draw, where there are too many ways to choose the runs.

    Returns:
        Sorted; all ways to choose up to 2000 of them, else 2000 drawn ones. Ways whose tau is not defined are left out.
    """
    names = list(score)
    a = [score[name] for name in names]
    ways = math.prod(len(runs[name]) for name in names)
    if ways <= _SEED_DRAWS:
        chosen = [list(one) for one in itertools.product(*(runs[name] for name in names))]
    else:
        rng = np.random.default_rng(seed)
        chosen = [[runs[name][int(rng.integers(len(runs[name])))] for name in names] for _ in range(_SEED_DRAWS)]
    one, two = np.triu_indices(len(a), 1)
    signs = np.sign(np.asarray(a)[one] - np.asarray(a)[two])
    drawn = np.asarray(chosen, float)
    other = np.sign(drawn[:, one] - drawn[:, two])
    divisor = np.sqrt((signs != 0).sum() * (other != 0).sum(axis=1))
    return sorted(float(x) for x in ((other * signs).sum(axis=1)[divisor > 0] / divisor[divisor > 0]))
