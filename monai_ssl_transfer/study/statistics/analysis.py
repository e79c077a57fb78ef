"""A study's table and its declaration put together: every number of the report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monai_ssl_transfer.study.declaration import Comparison, Declaration, Family, Metric
from monai_ssl_transfer.study.results import Cell, Results, missing_seeds
from monai_ssl_transfer.study.statistics.cases import PairedCases, compare_cases
from monai_ssl_transfer.study.statistics.equivalence import Margin, against_margin
from monai_ssl_transfer.study.statistics.interpolated import interpolated_population
from monai_ssl_transfer.study.statistics.multiplicity import benjamini_hochberg, holm
from monai_ssl_transfer.study.statistics.power import smallest_difference
from monai_ssl_transfer.study.statistics.seeds import NAN, Difference, Summary, compare, summarise

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Compared:
    """A comparison with its numbers, all in the unit of the table.

    Args:
        comparison: what was compared.
        metric: how it is shown.
        difference: over seeds; None where one of the two was not run.
        smallest: true difference that so many seeds find with 80 % probability, uncorrected.
        cases: the same over the cases, where the table has them.
        margin: tests against the stated margin, where there is one.
    """

    comparison: Comparison
    metric: Metric
    difference: Difference | None
    smallest: float
    cases: PairedCases | None
    margin: Margin | None

    @property
    def p(self) -> float:
        """Raw p; not a number where there is none."""
        return self.difference.p if self.difference else NAN

    @property
    def candidate_is_better(self) -> bool:
        """Whether the candidate's mean is the better one."""
        gain = self.difference.value if self.difference else NAN
        return gain > 0 if self.metric.larger_is_better else gain < 0


@dataclass(frozen=True)
class FamilyResult:
    """A family with the corrected p values of its comparisons, in its order.

    Args:
        family: as it was declared.
        compared: its comparisons.
        holm: adjusted p; a comparison without a p counts as 1.
        benjamini_hochberg: adjusted p.
        holm_no_worse: Holm's p of "worse by the stated margin or more", over those that have a margin; not a number
            for the others.
    """

    family: Family
    compared: tuple[Compared, ...]
    holm: tuple[float, ...]
    benjamini_hochberg: tuple[float, ...]
    holm_no_worse: tuple[float, ...]

    def shown(self) -> list[tuple[Compared, float]]:
        """Comparisons that survive Holm, with the adjusted p."""
        return [(one, p) for one, p in zip(self.compared, self.holm, strict=True) if p < ALPHA]


@dataclass(frozen=True)
class Headline:
    """A population against the reference, with the relative difference.

    Args:
        setting: cell and metric that it is about.
        name: of the population.
        real: whether it consists of runs.
        difference: to the reference; of the reference itself its own summary with no difference.
    """

    setting: Comparison
    name: str
    real: bool
    difference: Difference


@dataclass(frozen=True)
class Missing:
    """Declared runs without a value.

    Args:
        cell: what should have been run.
        metric: of it.
        seeds: those that are missing.
        declared: number of seeds that were declared.
    """

    cell: Cell
    metric: str
    seeds: tuple[int, ...]
    declared: int


@dataclass(frozen=True)
class Analysis:
    """Every number of a report.

    Args:
        declaration: of the study.
        results: its table.
        families: what is tested.
        shown: differences that are shown and not tested.
        headlines: see `Headline`.
        missing: declared runs without a value.
    """

    declaration: Declaration
    results: Results
    families: tuple[FamilyResult, ...]
    shown: tuple[Compared, ...]
    headlines: tuple[Headline, ...]
    missing: tuple[Missing, ...]

    def summary(self, cell: Cell, metric: str) -> Summary | None:
        """Return the summary of a cell's seeds, or None where it was not run."""
        values = list(self.results.per_seed(cell, metric).values())
        return summarise(values) if values else None

    def first_result(self, comparison: Comparison) -> tuple[Compared, float, Family] | None:
        """Return a comparison's numbers, Holm's p and the first family that it is declared in."""
        for result in self.families:
            for one, p in zip(result.compared, result.holm, strict=True):
                if one.comparison == comparison:
                    return one, p, result.family
        return None

    def compared(self, comparison: Comparison) -> Compared | None:
        """Return a comparison's numbers, whether it is tested in a family or only shown; None for any other."""
        found = self.first_result(comparison)
        return found[0] if found else next((one for one in self.shown if one.comparison == comparison), None)


def analyse(results: Results, declaration: Declaration, resamples: int = 9999, seed: int = 0) -> Analysis:
    """Compute every number of a study's report.

    Args:
        results: its table.
        declaration: what it compares.
        resamples: of the tests over cases.
        seed: of the tests over cases.
    """
    known: dict[Comparison, Compared] = {}
    for comparison in (*(one for family in declaration.families for one in family.comparisons), *declaration.shown):
        if comparison not in known:
            known[comparison] = _compared(results, declaration, comparison, resamples, seed)
    families = tuple(
        _family(family, tuple(known[one] for one in family.comparisons)) for family in declaration.families
    )
    shown = tuple(known[one] for one in declaration.shown)
    headlines, missing = _headlines(results, declaration), _missing(results, declaration)
    return Analysis(declaration, results, families, shown, headlines, missing)


def _compared(
    results: Results, declaration: Declaration, comparison: Comparison, resamples: int, seed: int
) -> Compared:
    metric = declaration.metric(comparison.metric)
    sides = comparison.candidate, comparison.reference
    a, b = (list(results.per_seed(side, comparison.metric).values()) for side in sides)
    if not a or not b:
        return Compared(comparison, metric, None, NAN, None, None)
    difference = compare(a, b)
    spread = math.sqrt((difference.candidate.sd**2 + difference.reference.sd**2) / 2)
    cases = [results.per_case(side, comparison.metric) for side in sides]
    paired = compare_cases(cases[0], cases[1], resamples=resamples, seed=seed) if cases[0] and cases[1] else None
    margin = against_margin(a, b, metric.margin, metric.larger_is_better) if metric.margin else None
    return Compared(
        comparison, metric, difference, smallest_difference(spread, min(len(a), len(b)), ALPHA, POWER), paired, margin
    )


def _family(family: Family, compared: tuple[Compared, ...]) -> FamilyResult:
    raw = [1.0 if math.isnan(one.p) else one.p for one in compared]
    return FamilyResult(family, compared, tuple(holm(raw)), tuple(benjamini_hochberg(raw)), _no_worse(compared))


def _no_worse(compared: tuple[Compared, ...]) -> tuple[float, ...]:
    """Holm over the comparisons with a margin; a test without a result counts as 1."""
    places = [index for index, one in enumerate(compared) if one.metric.margin]
    margins = [compared[index].margin for index in places]
    raw = [1.0 if margin is None or math.isnan(margin.p_no_worse) else margin.p_no_worse for margin in margins]
    adjusted = dict(zip(places, holm(raw), strict=True))
    return tuple(adjusted.get(index, NAN) for index in range(len(compared)))


def _headlines(results: Results, declaration: Declaration) -> tuple[Headline, ...]:
    """The reference, its candidates and the interpolated populations of every headline setting."""
    rows: list[Headline] = []
    for reference, metric in dict.fromkeys((one.reference, one.metric) for one in declaration.headline):
        settings = [one for one in declaration.headline if (one.reference, one.metric) == (reference, metric)]
        base = list(results.per_seed(reference, metric).values())
        if not base:
            continue
        rows.append(Headline(settings[0], reference.initialisation, True, compare(base, base)))
        values = {
            one.candidate.initialisation: list(results.per_seed(one.candidate, metric).values()) for one in settings
        }
        rows += [Headline(settings[0], name, True, compare(found, base)) for name, found in values.items() if found]
        for one in declaration.interpolations:
            smaller, larger = (values.get(name, []) for name in one.between)
            if len(smaller) > 1 and len(larger) > 1:
                population = interpolated_population(one, smaller, larger)
                rows.append(Headline(settings[0], one.name, False, compare(population, base)))
    return tuple(rows)


def _missing(results: Results, declaration: Declaration) -> tuple[Missing, ...]:
    found = []
    for declared in declaration.cells:
        for metric in declared.metrics:
            seeds = missing_seeds(results, declared.cell, metric, declared.seeds)
            if seeds:
                found.append(Missing(declared.cell, metric, tuple(seeds), len(declared.seeds)))
    return tuple(found)
