"""Many tests at once: Holm and Benjamini-Hochberg over a declared family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p values of a family after Holm (1979).

    At most 5 % of such families have a single wrong finding when findings are the adjusted values below 0.05, however
    the tests depend on each other.

    Args:
        p: raw p values of all tests of the family, those without a result included as 1.

    Raises:
        ValueError: one is not in [0, 1].
    """
    raw = _checked(p)
    order = np.argsort(raw, kind="stable")
    stepped = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty(len(raw))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjust the p values of a family after Benjamini and Hochberg (1995).

    Of the findings with adjusted values below 0.05, 5 % are expected to be wrong (tests independent or positively
    dependent).

    Args:
        p: raw p values of all tests of the family.

    Raises:
        ValueError: one is not in [0, 1].
    """
    raw = _checked(p)
    return [float(value) for value in stats.false_discovery_control(raw)] if len(raw) else []


def _checked(p: Sequence[float]) -> np.ndarray:
    raw = np.asarray(p, dtype=float)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError("a p value is in [0, 1]; count a test without a result as 1")
    return raw
