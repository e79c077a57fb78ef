"""The tables of a report, before they become Markdown, LaTeX or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from monai_ssl_transfer.study.declaration import Comparison, DeclaredCell
from monai_ssl_transfer.study.report.printing import (
    NOTHING,
    amount,
    difference_with_p,
    fixed,
    mean_and_sd,
    p_value,
    percent,
    with_unit,
)
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.statistics.analysis import Analysis


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Args:
        title: above it.
        header: names of the columns.
        rows: as wide as the header.
        names: columns from the left that hold words; the others hold numbers.
        note: below it.
        bold: positions of rows that are findings.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int
    note: str = ""
    bold: frozenset[int] = frozenset()


def experiments(analysis: Analysis) -> dict[str, list[DeclaredCell]]:
    """Return the declared cells of each experiment, in the declared order."""
    found: dict[str, list[DeclaredCell]] = {}
    for declared in analysis.declaration.cells:
        found.setdefault(declared.cell.study, []).append(declared)
    return found


def experiment_table(analysis: Analysis, name: str, declared: Sequence[DeclaredCell]) -> Table:
    """Return the means of one experiment, with the differences that are declared in it."""
    title = ": ".join(part for part in (name, analysis.declaration.descriptions.get(name, "")) if part) or "All runs"
    if all(len(one.seeds) == 1 for one in declared) and len({one.cell.protocol for one in declared}) > 1:
        return _single_runs(analysis, title, declared)
    initialisations = list(dict.fromkeys(one.cell.initialisation for one in declared))
    compared = _comparisons_of(analysis, name)
    against = list(dict.fromkeys((one.candidate.initialisation, one.reference.initialisation) for one in compared))
    columns = place_columns([one.cell for one in declared])
    rows = []
    for cell, metric in _settings(declared):
        facts = analysis.declaration.metric(metric)
        means = [mean_and_sd(analysis.summary(replace(cell, initialisation=i), metric), facts) for i in initialisations]
        differences = []
        for candidate, reference in against:
            comparison = Comparison(
                replace(cell, initialisation=candidate), replace(cell, initialisation=reference), metric
            )
            differences.append(difference_with_p(analysis.compared(comparison)))
        rows.append((*place_cells(cell, columns), with_unit(facts), *means, *differences))
    header = (*columns, "metric", *initialisations, *(f"{a} − {b} (p)" for a, b in against))
    note = "Mean ± sample standard deviation over seeds; differences with Welch's p, two-sided and uncorrected."
    return Table(title, header, tuple(rows), len(columns) + 1, note)


def _single_runs(analysis: Analysis, title: str, declared: Sequence[DeclaredCell]) -> Table:
    """One run per cell and several protocols: these become the columns."""
    protocols = list(dict.fromkeys(one.cell.protocol for one in declared))
    first, last = min(protocols), max(protocols)
    common = first[: next((i for i in range(len(first)) if first[i] != last[i : i + 1]), 0)]
    common = common[: common.rfind(" ") + 1]
    rows = []
    for task, metric in dict.fromkeys((one.cell.task, metric) for one in declared for metric in one.metrics):
        cells = [one.cell for one in declared if one.cell.task == task]
        facts = analysis.declaration.metric(metric)
        for initialisation in dict.fromkeys(cell.initialisation for cell in cells):
            run = next(cell for cell in cells if cell.initialisation == initialisation)
            values = [mean_and_sd(analysis.summary(replace(run, protocol=p), metric), facts) for p in protocols]
            rows.append((task, with_unit(facts), initialisation, *values))
    header = ("task", "metric", "initialisation", *(protocol[len(common) :] for protocol in protocols))
    note = (
        f"{common.strip()}: columns. Single runs: no spread, no test." if common else "Single runs: no spread, no test."
    )
    return Table(title, header, tuple(rows), 3, note)


def headline_table(analysis: Analysis) -> Table | None:
    """Return real runs beside interpolated populations, with relative differences; None where none are declared."""
    if not analysis.headlines:
        return None
    rows = []
    for one in analysis.headlines:
        cell, metric = one.setting.candidate, analysis.declaration.metric(one.setting.metric)
        labels = "" if cell.fraction == 1 else f", {percent(cell.fraction)} of the labels"
        setting = f"{cell.task}, {cell.protocol}{labels}"
        kind = "runs" if one.real else "made up"
        mean = amount(one.difference.candidate.mean, metric)
        if one.name == one.setting.reference.initialisation:
            rows.append((setting, one.name, kind, mean, NOTHING, NOTHING, NOTHING))
            continue
        relative = one.difference.value / one.difference.reference.mean * 100
        points = amount(one.difference.value, metric, signed=True)
        rows.append((setting, one.name, kind, mean, points, fixed(relative, signed=True), p_value(one.difference.p)))
    shown = analysis.declaration.metric(analysis.headlines[0].setting.metric)
    mean, points = (
        f"{word} ({unit})" if unit else word
        for word, unit in (("mean", shown.unit), ("difference", shown.difference_unit))
    )
    header = ("setting", "population", "what it is", mean, points, "relative (%)", "p")
    note = (
        "The made-up populations are points on the line between two real means, with a computed spread; their p is no "
        "evidence, and it is printed only to show where published numbers come from."
    )
    return Table("Real runs beside the paper's interpolated populations", header, tuple(rows), 3, note)


def missing_lines(analysis: Analysis) -> list[str]:
    """Say in words which declared runs have no value, cells that lack the same seeds together."""
    together: dict[tuple[str, str, float, tuple[int, ...], int], dict[str, list[str]]] = {}
    for one in analysis.missing:
        key = (one.cell.study, one.cell.protocol, one.cell.fraction, one.seeds, one.declared)
        places = together.setdefault(key, {}).setdefault(f"{one.cell.task} {one.metric}", [])
        places.append(one.cell.initialisation)
    lines = []
    for (study, protocol, fraction, seeds, declared), missing in together.items():
        labels = "" if fraction == 1 else f"{percent(fraction)} of the labels"
        where = ", ".join(part for part in (study, protocol, labels) if part)
        which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
        what = "; ".join(f"{place} ({', '.join(names)})" for place, names in missing.items())
        lines.append(f"{where}: {which} of {declared} declared: {what}")
    return lines


def _settings(declared: Sequence[DeclaredCell]) -> list[tuple[Cell, str]]:
    """Rows of an experiment: cells without their initialisation, and metrics."""
    pairs = ((replace(one.cell, initialisation=""), metric) for one in declared for metric in one.metrics)
    return list(dict.fromkeys(pairs))


def _comparisons_of(analysis: Analysis, name: str) -> list[Comparison]:
    every = (one for family in analysis.declaration.families for one in family.comparisons)
    return [one for one in every if one.candidate.study == name]


def place_columns(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the columns that name a setting: the task, and of the others those that differ between the cells."""
    columns = ["task"]
    if len({cell.fraction for cell in cells}) > 1:
        columns.append("labels")
    if len({cell.protocol for cell in cells}) > 1:
        columns.append("protocol")
    return tuple(columns)


def place_cells(cell: Cell, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the texts of a cell for the columns of `place_columns`."""
    texts = {"task": cell.task, "labels": percent(cell.fraction), "protocol": cell.protocol}
    return tuple(texts[column] for column in columns)
