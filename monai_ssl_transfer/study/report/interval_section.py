"""The mean of every cell with its interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from monai_ssl_transfer.study.declaration import DeclaredCell, Metric
from monai_ssl_transfer.study.report.printing import NOTHING, amount, with_unit
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.report.tables import Table, experiments, place_cells, place_columns
from monai_ssl_transfer.study.statistics.analysis import Analysis
from monai_ssl_transfer.study.statistics.seeds import Summary


def interval_section(analysis: Analysis) -> Section | None:
    """Return the means with their intervals; None where every cell has one run at most."""
    tables = [_table(analysis, name, declared) for name, declared in experiments(analysis).items()]
    counted = [
        summary.n
        for one in analysis.declaration.cells
        for metric in one.metrics
        if (summary := analysis.summary(one.cell, metric)) is not None
    ]
    if max(counted, default=0) < 2:
        return None
    note = (
        "Student's t over the runs of a cell, which may reach beyond what the metric can take; n in brackets where "
        "it is not that of the others. Two intervals that "
        "overlap do not "
        "mean that there is no difference: the differences have their own intervals, under “Comparisons”."
    )
    return Section("Means with intervals", tables=tuple(tables), notes=(note,))


def _table(analysis: Analysis, name: str, declared: Sequence[DeclaredCell]) -> Table:
    initialisations = list(dict.fromkeys(one.cell.initialisation for one in declared))
    columns = place_columns([one.cell for one in declared])
    usual = max(len(one.seeds) for one in declared)
    rows = []
    pairs = dict.fromkeys((replace(one.cell, initialisation=""), metric) for one in declared for metric in one.metrics)
    for cell, metric in pairs:
        facts = analysis.declaration.metric(metric)
        found = [analysis.summary(replace(cell, initialisation=one), metric) for one in initialisations]
        rows.append((*place_cells(cell, columns), with_unit(facts), *(_text(one, facts, usual) for one in found)))
    title = f"{name}: means and 95 % intervals over seeds" if name else "Means and 95 % intervals over seeds"
    return Table(title, (*columns, "metric", *initialisations), tuple(rows), len(columns) + 1)


def _text(summary: Summary | None, metric: Metric, usual: int) -> str:
    if summary is None:
        return NOTHING
    n = "" if summary.n == usual else f" [{summary.n}]"
    if summary.n < 2:
        return f"{amount(summary.mean, metric)}{n}"
    return f"{amount(summary.mean, metric)} ({amount(summary.low, metric)} to {amount(summary.high, metric)}){n}"
