"""Every statistic against scipy, a number worked out elsewhere, or brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monai_ssl_transfer.study.results import CaseValues
from monai_ssl_transfer.study.statistics.cases import (
    bootstrap_interval,
    compare_cases,
    group_sums,
    permutation_p,
)
from monai_ssl_transfer.study.statistics.equivalence import against_margin
from monai_ssl_transfer.study.statistics.multiplicity import benjamini_hochberg, holm
from monai_ssl_transfer.study.statistics.power import power_of, smallest_difference
from monai_ssl_transfer.study.statistics.seeds import compare, hedges_g, summarise

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
A, B = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9], [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8]


def test_summary_by_hand() -> None:
    """2, 4, 9: deviations -3, -1, 4, so the variance is 26 / 2; t(0.975, 2) is 4.302653 in any table."""
    found = summarise([2.0, 4.0, 9.0])
    assert (found.n, found.mean) == (3, 5.0)
    assert found.sd == pytest.approx(math.sqrt(13))
    half = 4.302653 * math.sqrt(13 / 3)
    assert (found.low, found.high) == pytest.approx((5 - half, 5 + half), rel=1e-6)


def test_one_run_has_a_mean_and_nothing_else() -> None:
    assert summarise([3.0]).mean == 3.0
    found = compare([3.0], [1.0, 2.0])
    assert found.value == 1.5
    assert all(map(math.isnan, (found.p, found.low, found.g, found.candidate.sd)))
    with pytest.raises(ValueError, match="without runs"):
        summarise([])


def test_no_spread_has_no_test() -> None:
    found = compare([0.1 + 0.2] * 3, [0.3] * 3)
    assert math.isnan(found.p) and math.isnan(found.g)


def test_welch_by_its_formula() -> None:
    found = compare(A, B)
    parts = [np.var(x, ddof=1) / len(x) for x in (A, B)]
    error = math.sqrt(sum(parts))
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 6)
    assert found.degrees == pytest.approx(degrees)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / error, degrees))
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, degrees) * error)


def test_hedges_g_by_hand() -> None:
    """1, 2, 3 against 3, 4, 5: pooled standard deviation 1, d = -2; gamma(2) / (sqrt(2) gamma(1.5)) = 0.7978846."""
    g, low, high = hedges_g([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])
    assert g == pytest.approx(-2 * 0.7978846, rel=1e-6)
    assert low < g < high


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3))
def test_the_interval_of_g_excludes_zero_exactly_when_student_does(seed: int, shift: float) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(shift, 1, 4), generator.normal(0, 1, 5)
    _, low, high = hedges_g(a, b)
    assert (low > 0 or high < 0) == (stats.ttest_ind(a, b).pvalue < 0.05)


def test_the_interval_of_g_holds_the_true_effect() -> None:
    """600 studies of a true effect of 1: 95 % of the intervals hold it, give or take three standard errors."""
    generator = np.random.default_rng(0)
    found = [hedges_g(generator.normal(1, 1, 4), generator.normal(0, 1, 4)) for _ in range(600)]
    # The interval is scaled by the same correction as g, so that the true effect is too.
    correction = math.gamma(3) / (math.sqrt(3) * math.gamma(2.5))
    held = np.mean([low <= correction <= high for _, low, high in found])
    assert held == pytest.approx(0.95, abs=0.027)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_runs_does_not_matter_and_sides_mirror(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=4), generator.normal(size=5)
    first, again, mirrored = compare(a, b), compare(generator.permutation(a), b), compare(b, a)
    assert (again.p, again.value, again.g) == pytest.approx((first.p, first.value, first.g))
    assert (mirrored.p, -mirrored.value, -mirrored.high) == pytest.approx((first.p, first.value, first.low))
    assert -mirrored.g_high == pytest.approx(first.g_low, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(P_VALUES)
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    """The adjusted p of a test is the largest Bonferroni p of all subsets that hold it."""
    indices = range(len(p))
    subsets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(indices, size)]
    closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in indices]
    assert holm(p) == pytest.approx(closed)


@settings(max_examples=60, deadline=None)
@given(P_VALUES, st.randoms())
def test_adjusted_p_values_are_ordered_and_never_below_the_raw_ones(p: list[float], shuffler: object) -> None:
    adjusted, discovery = holm(p), benjamini_hochberg(p)
    assert all(h >= q - 1e-12 and q >= raw - 1e-12 for h, q, raw in zip(adjusted, discovery, p, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    for found in (adjusted, discovery):
        assert all(found[a] <= found[b] + 1e-12 for a, b in itertools.pairwise(order))
    turned = p[::-1]
    assert holm(turned)[::-1] == pytest.approx(adjusted)


def test_benjamini_hochberg_by_hand() -> None:
    """0.01 x 4, 0.02 x 4 / 2, 0.03 x 4 / 3 and 0.5: the first three are all 0.04."""
    assert benjamini_hochberg([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([]) == [] and benjamini_hochberg([]) == []
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.1, float("nan")])


def test_margins_are_scipys_shifted_tests() -> None:
    found = against_margin(A, B, 5.0)
    a, b = np.array(A), np.array(B)
    no_worse = stats.ttest_ind(a + 5, b, equal_var=False, alternative="greater").pvalue
    no_better = stats.ttest_ind(a - 5, b, equal_var=False, alternative="less").pvalue
    assert found.p_no_worse == pytest.approx(no_worse)
    assert found.p_equivalent == pytest.approx(max(no_worse, no_better))
    smaller = against_margin(A, B, 5.0, larger_is_better=False)
    assert smaller.p_no_worse == pytest.approx(no_better)
    assert smaller.p_equivalent == pytest.approx(found.p_equivalent)
    with pytest.raises(ValueError, match="above 0"):
        against_margin(A, B, 0.0)


@pytest.mark.parametrize(("d", "n", "power"), [(0.5, 64, 0.8015), (1.0, 17, 0.8070), (0.8, 26, 0.8075)])
def test_power_is_that_of_published_tables(d: float, n: int, power: float) -> None:
    """Two-sided t test at 5 %: the values that Cohen's tables and G*Power give."""
    assert power_of(d, 1.0, n) == pytest.approx(power, abs=5e-5)


def test_four_seeds_find_the_smallest_difference_in_four_of_five_simulated_studies() -> None:
    found = smallest_difference(0.3, 4)
    generator = np.random.default_rng(1)
    a, b = generator.normal(found, 0.3, (4000, 4)), generator.normal(0, 0.3, (4000, 4))
    assert np.mean(stats.ttest_ind(a, b, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.02)
    assert power_of(0.0, 1.0, 4, 0.01) == pytest.approx(0.01)
    assert math.isnan(smallest_difference(0.3, 1)) and smallest_difference(0.0, 4) == 0.0


def test_the_exact_permutation_is_that_of_all_exchanges() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.normal(0.5, 1, 9), generator.normal(0, 1, 9)
    signs = np.array(list(itertools.product((1, -1), repeat=9)))
    sums = signs @ (a - b)
    p, exact = permutation_p(a, b)
    assert exact
    assert p == pytest.approx(np.mean(np.abs(sums) >= abs((a - b).sum()) - 1e-12))
    assert permutation_p(a[::-1], b[::-1])[0] == pytest.approx(p)
    estimate, exact = permutation_p(a, b, resamples=500)
    assert not exact and estimate == pytest.approx(p, abs=0.07)


def test_the_smallest_monte_carlo_p_counts_the_observed_exchange() -> None:
    """Forty patients that all agree: no random exchange is as extreme, so 2 (0 + 1) / (999 + 1)."""
    p, exact = permutation_p(np.ones(40), np.zeros(40), resamples=999)
    assert not exact and p == pytest.approx(0.002)


def test_patients_are_exchanged_and_drawn_as_a_whole() -> None:
    """Two patients with many cases each give the p of two units, not that of twenty."""
    names = [f"c{i}" for i in range(20)]
    groups = {name: "ab"[i % 2] for i, name in enumerate(names)}
    candidate = CaseValues({name: 1.0 + i / 100 for i, name in enumerate(names)}, groups)
    reference = CaseValues(dict.fromkeys(names, 0.0), groups)
    found = compare_cases(candidate, reference)
    assert found is not None
    assert (found.cases, found.groups, found.exact, found.p) == (20, 2, True, 0.5)
    assert found.value == pytest.approx(1.095)
    assert compare_cases(candidate, CaseValues({"c0": 1.0}, groups)) is None
    first, second, counts = group_sums(np.array([1.0, 2.0, 4.0]), np.zeros(3), ["b", "a", "b"])
    assert (list(first), list(second), list(counts)) == ([2.0, 5.0], [0.0, 0.0], [1.0, 2.0])


def test_the_bootstrap_interval_is_bca_by_hand() -> None:
    """Bias from all 6^6 draws of patients, acceleration from leaving one out; unequal numbers of cases."""
    sums, counts = np.array([2.0, -1.0, 3.5, 0.4, 9.0, 1.7]), np.array([2.0, 1.0, 3.0, 1.0, 4.0, 2.0])
    draws = np.array(list(itertools.product(range(6), repeat=6)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    mean = sums.sum() / counts.sum()
    bias = stats.norm.ppf((np.mean(means < mean) + np.mean(means <= mean)) / 2)
    left = np.array([(sums.sum() - sums[i]) / (counts.sum() - counts[i]) for i in range(6)])
    spread = left.mean() - left
    acceleration = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    z = stats.norm.ppf([0.025, 0.975]) + bias
    parts = stats.norm.cdf(bias + z / (1 - acceleration * z))
    low, high = bootstrap_interval(sums, counts, resamples=20000)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, parts)), abs=0.03)
    assert low - np.quantile(means, 0.025) > 0.1, "the plain percentiles are another interval"
    assert bootstrap_interval(sums, counts, resamples=20000) == (low, high)
    assert math.isnan(bootstrap_interval(counts, counts)[0])
