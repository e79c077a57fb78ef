"""The tables of comparisons: over seeds, over cases, against a stated margin; and those that are only shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from monai_ssl_transfer.study.declaration import Metric
from monai_ssl_transfer.study.report.printing import NOTHING, amount, fixed, interval, p_value
from monai_ssl_transfer.study.report.tables import Table, place_cells, place_columns
from monai_ssl_transfer.study.statistics.analysis import Analysis, Compared, FamilyResult


def comparison_tables(analysis: Analysis) -> Iterator[Table]:
    """Yield every table of comparisons in the order of a report."""
    for result in analysis.families:
        yield family_table(result)
        yield from (table for table in (margin_table(result), case_table(result)) if table is not None)
    if (shown := shown_table(analysis)) is not None:
        yield shown


def family_table(result: FamilyResult) -> Table:
    """Return every comparison of a family with its interval, effect size and corrected p values."""
    columns = place_columns([one.comparison.candidate for one in result.compared])
    rows = [
        (
            *place_cells(one.comparison.candidate, columns),
            one.metric.name,
            *_numbers(one, holm, bh, _sides(one, result.compared)),
        )
        for one, holm, bh in zip(result.compared, result.holm, result.benjamini_hochberg, strict=True)
    ]
    header = (
        *columns,
        "metric",
        _sides_header(result.compared),
        "difference",
        "95 % interval",
        "p",
        "p Holm",
        "q B-H",
        "Hedges g (95 % interval)",
        "findable",
    )
    shown = frozenset(index for index, p in enumerate(result.holm) if p < 0.05)
    note = (
        f"{len(rows)} comparisons, corrected together. Intervals and g are not corrected. findable: the smallest true "
        "difference that so many seeds with this spread find with 80 % probability, before correction. Bold: Holm's p "
        "is below 0.05."
    )
    return Table(
        f"Family “{result.family.name}”: {result.family.description}",
        header,
        tuple(rows),
        len(columns) + 2,
        note,
        shown,
    )


def shown_table(analysis: Analysis) -> Table | None:
    """Return the differences in metrics that are shown and not tested, or None where there are none."""
    shown = analysis.shown
    if not shown:
        return None
    columns = place_columns([one.comparison.candidate for one in shown])
    rows = []
    for one in shown:
        _, difference, ends, *_, g, _ = _numbers(one, math.nan, math.nan, "")
        cases = one.cases
        patients = NOTHING if cases is None else interval(cases.low, cases.high, one.metric)
        where = place_cells(one.comparison.candidate, columns)
        rows.append((*where, one.metric.name, _sides(one, shown), difference, ends, patients, g))
    header = (*columns, "metric", _sides_header(shown), "difference", "95 % interval", "95 % interval over cases",
              "Hedges g (95 % interval)")  # fmt: skip
    note = (
        "Not tested and in no family: these metrics describe the same runs as the primary metric of their task, so "
        "that a finding in them is no second finding."
    )
    return Table("Other metrics", header, tuple(rows), len(columns) + 2, note)


def _numbers(one: Compared, holm: float, bh: float, sides: str) -> tuple[str, ...]:
    difference = one.difference
    if difference is None:
        return (sides, "not run", *[NOTHING] * 2, p_value(holm), p_value(bh), *[NOTHING] * 2)
    runs = {difference.candidate.n, difference.reference.n}
    sides += "" if len(runs) == 1 else f" ({difference.candidate.n} and {difference.reference.n} seeds)"
    g = fixed(difference.g, 2, signed=True)
    effect = g if g == NOTHING else f"{g} ({interval(difference.g_low, difference.g_high, Metric('g'))})"
    return (
        sides,
        amount(difference.value, one.metric, signed=True),
        interval(difference.low, difference.high, one.metric),
        p_value(one.p),
        p_value(holm),
        p_value(bh),
        effect,
        amount(one.smallest, one.metric),
    )


def _references(compared: Sequence[Compared]) -> list[str]:
    return list(dict.fromkeys(one.comparison.reference.initialisation for one in compared))


def _sides_header(compared: Sequence[Compared]) -> str:
    references = _references(compared)
    return f"candidate, against {references[0]}" if len(references) == 1 else "candidate − reference"


def _sides(one: Compared, compared: Sequence[Compared]) -> str:
    """The candidate, and its reference where the table has several."""
    candidate, reference = one.comparison.candidate.initialisation, one.comparison.reference.initialisation
    return candidate if len(_references(compared)) == 1 else f"{candidate} − {reference}"


def case_table(result: FamilyResult) -> Table | None:
    """Return the comparisons over cases of a family, or None where the table has no cases."""
    found = [one for one in result.compared if one.cases is not None]
    if not found:
        return None
    columns = place_columns([one.comparison.candidate for one in found])
    rows = []
    for one in found:
        cases = one.cases
        if cases is None:
            continue
        sides = _sides(one, result.compared)
        how = "exact" if cases.exact else "Monte Carlo"
        numbers = (str(cases.cases), str(cases.groups), amount(cases.value, one.metric, signed=True))
        ends = interval(cases.low, cases.high, one.metric)
        rows.append((*place_cells(one.comparison.candidate, columns), one.metric.name, sides, *numbers, ends,
                     f"{p_value(cases.p)} ({how})"))  # fmt: skip
    header = (*columns, "metric", _sides_header(result.compared), "cases", "patients", "difference", "95 % interval",
              "p permutation")  # fmt: skip
    note = (
        "Each case averaged over seeds; BCa bootstrap of patients, permutation within patients; p uncorrected. The "
        "trained models are taken as they are: it says how far the difference holds for other patients, not for other "
        "seeds."
    )
    title = f"Family “{result.family.name}” over the cases of the test set"
    return Table(title, header, tuple(rows), len(columns) + 2, note)


def margin_table(result: FamilyResult) -> Table | None:
    """Return the tests against stated margins of a family, or None where no margin was stated."""
    pairs = zip(result.compared, result.holm_no_worse, strict=True)
    found = [(one, one.margin, one.difference, holm) for one, holm in pairs if one.margin is not None]
    if not found:
        return None
    columns = place_columns([one.comparison.candidate for one, *_ in found])
    rows = []
    for one, margin, difference, holm in found:
        if margin is None or difference is None:
            continue
        sides = _sides(one, result.compared)
        numbers = (amount(margin.margin, one.metric), amount(difference.value, one.metric, signed=True))
        verdict = (p_value(margin.p_no_worse), p_value(holm), p_value(margin.p_equivalent))
        rows.append((*place_cells(one.comparison.candidate, columns), one.metric.name, sides, *numbers, *verdict))
    header = (
        *columns,
        "metric",
        _sides_header(result.compared),
        "margin",
        "difference",
        "p no worse",
        "p no worse, Holm",
        "p equivalent",
    )
    note = "Welch's one-sided tests against the margin (equivalence: both, uncorrected); a small p shows it."
    return Table(
        f"Family “{result.family.name}” against the stated margin", header, tuple(rows), len(columns) + 2, note
    )
