"""Few-shot probes of a study: their values over the shots per class."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from monai_ssl_transfer.study.declaration import Metric
from monai_ssl_transfer.study.report.curves import Curve, curve_svg
from monai_ssl_transfer.study.report.printing import mean_and_sd, percent, with_unit
from monai_ssl_transfer.study.report.run_folder import RunFolder
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.report.tables import Table
from monai_ssl_transfer.study.statistics.analysis import Analysis
from monai_ssl_transfer.study.statistics.seeds import summarise

_DIGITS = 4
_Lines = dict[str, dict[float, list[float]]]


def shots_section(run: RunFolder, analysis: Analysis, colours: Mapping[str, str]) -> Section | None:
    """Return the curves of few-shot probes; None where no task was probed with two numbers of shots or more."""
    drawn = _curves(run, analysis)
    if not drawn:
        return None
    counts = sorted({int(one.record["few_shot"]["draws"]) for one in run.done() if one.record.get("few_shot")})
    names = dict.fromkeys(name for curve in drawn for name in curve.points)
    key = "".join(f"<span><i style='background:{colours[name]}'></i>{html.escape(name)}</span>" for name in names)
    figures = "".join(curve_svg(curve, dict(colours)) for curve in drawn)
    note = (
        f"Every point is a seed, itself the mean over {' or '.join(map(str, counts))} draws; lines join the means. The "
        "same patients are drawn for every initialisation, and fewer shots lie within more. In the other tables "
        "“labels” of these rows is the part of the labels that was drawn from."
    )
    pictures = f"<div class='key'>{key}</div><div class='curves'>{figures}</div>"
    return Section("Few-shot", tables=(_table(drawn),), pictures=pictures, notes=(note,))


def _table(drawn: Sequence[Curve]) -> Table:
    """Means over seeds by shots."""
    shots = sorted({one for curve in drawn for points in curve.points.values() for one in points})
    rows = []
    for curve in drawn:
        for name, points in curve.points.items():
            found = [summarise(points[one]) if one in points else None for one in shots]
            rows.append((curve.title, name, *(mean_and_sd(one, Metric("", digits=_DIGITS)) for one in found)))
    header = ("task, probe: metric", "initialisation", *(f"{one:g} per class" for one in shots))
    return Table("Shots per class", header, tuple(rows), 2, "Mean ± sample standard deviation over seeds.")


def _curves(run: RunFolder, analysis: Analysis) -> list[Curve]:
    """One per task, fraction, learner and metric."""
    metrics = {one.cell: one.metrics for one in analysis.declaration.cells}
    found: dict[tuple[str, float, str, str], _Lines] = {}
    for one in run.done():
        cell, shots = one.cell, one.record.get("few_shot")
        for metric in metrics.get(cell, ()) if shots else ():
            value = analysis.results.per_seed(cell, metric).get(one.seed)
            if value is not None and shots:
                lines = found.setdefault((cell.task, cell.fraction, str(shots["probe"]), metric), {})
                points = lines.setdefault(cell.initialisation, {}).setdefault(float(shots["shots"]), [])
                points.append(value * analysis.declaration.metric(metric).scale)
    return [
        Curve(_title(key, analysis), several, "shots per class", "{:g}".format)
        for key, lines in found.items()
        if (several := {name: points for name, points in lines.items() if len(points) > 1})
    ]


def _title(key: tuple[str, float, str, str], analysis: Analysis) -> str:
    task, fraction, probe, metric = key
    part = "" if fraction == 1 else f", of {percent(fraction)} of the labels"
    return f"{task}{part}, {probe}: {with_unit(analysis.declaration.metric(metric))}"
