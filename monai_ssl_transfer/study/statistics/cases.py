"""What the cases of a test set say about two initialisations: paired by case, resampled by patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from monai_ssl_transfer.study.results import CaseValues

METHOD = "BCa bootstrap of patients"


@dataclass(frozen=True)
class PairedCases:
    """A candidate against a reference on the same cases.

    Args:
        cases: cases that both judged.
        groups: patients that these belong to.
        value: mean difference over the cases, candidate minus reference.
        low: lower end of the bootstrap interval (patients are drawn); not a number where it is not defined.
        high: upper end of it.
        p: two-sided p of the permutation test that exchanges the two within a patient.
        exact: whether all exchanges were tried.
    """

    cases: int
    groups: int
    value: float
    low: float
    high: float
    p: float
    exact: bool


def compare_cases(
    candidate: CaseValues, reference: CaseValues, level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> PairedCases | None:
    """Compare two initialisations case by case.

    Args:
        candidate: values of its cases, averaged over seeds.
        reference: values of its cases.
        level: of the interval.
        resamples: exchanges and bootstrap samples; up to this number of possible exchanges, all are tried.
        seed: of both.

    Returns:
        None where the two were not judged on the same cases, or by fewer than two patients.
    """
    names = sorted(candidate.values)
    if names != sorted(reference.values):
        return None
    groups = [candidate.groups[name] for name in names]
    a = np.array([candidate.values[name] for name in names])
    b = np.array([reference.values[name] for name in names])
    first, second, counts = group_sums(a, b, groups)
    if len(counts) < 2:
        return None
    p, exact = permutation_p(first, second, resamples, seed)
    low, high = bootstrap_interval(first - second, counts, level, resamples, seed)
    return PairedCases(len(names), len(counts), float(np.mean(a - b)), low, high, p, exact)


def group_sums(a: np.ndarray, b: np.ndarray, groups: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add up both values over the cases of each patient.

    Args:
        a: (cases,) candidate.
        b: (cases,) reference.
        groups: patient of each case.

    Returns:
        (patients,) sums of a, of b, and numbers of cases, patients in alphabetical order.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    return np.bincount(inverse, a), np.bincount(inverse, b), np.bincount(inverse).astype(float)


def permutation_p(first: np.ndarray, second: np.ndarray, resamples: int = 9999, seed: int = 0) -> tuple[float, bool]:
    """Test whether two initialisations can be exchanged within patients.

    Args:
        first: (patients,) sums of the candidate.
        second: (patients,) sums of the reference.
        resamples: random exchanges; where there are no more possible ones, all are tried.
        seed: of the random exchanges.

    Returns:
        Two-sided p, and whether it is exact. Of random exchanges the observed one is counted as another (the "+ 1"),
        so that p is never 0.
    """
    exact = 2 ** len(first) <= resamples
    tested = stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=1000,
        random_state=np.random.default_rng(seed),
    )
    return float(tested.pvalue), exact


def bootstrap_interval(
    differences: np.ndarray, counts: np.ndarray, level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Return the BCa interval of the mean difference over cases when patients are drawn with replacement.

    Args:
        differences: (patients,) sums of the differences of a patient's cases.
        counts: (patients,) cases of a patient.
        level: of the interval.
        resamples: bootstrap samples.
        seed: of them.

    Returns:
        Lower and upper end; not numbers where all patients agree, because then there is nothing to draw from.
    """
    means = differences / counts
    if np.ptp(means) <= 1e-12 * max(float(np.abs(means).max()), 1e-300):
        return float("nan"), float("nan")
    found = stats.bootstrap(
        (differences, counts),
        lambda d, n, axis: np.sum(d, axis=axis) / np.sum(n, axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=level,
        n_resamples=resamples,
        method="BCa",
        batch=1000,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
