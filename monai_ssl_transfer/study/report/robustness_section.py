"""The robustness of a study's report: curves over severities, and a table with paired intervals."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from monai_ssl_transfer.study.report.line_plot import Frame, Line, line_plot
from monai_ssl_transfer.study.report.printing import NOTHING, fixed, place
from monai_ssl_transfer.study.report.robustness_curves import CLEAN, Corrupted, corrupted_settings, ends
from monai_ssl_transfer.study.report.run_folder import RunFolder
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.report.tables import Table
from monai_ssl_transfer.study.statistics.analysis import Analysis

_FEW_GROUPS = 10


def robustness_section(run: RunFolder, analysis: Analysis, colours: Mapping[str, str]) -> Section | None:
    """Return curves and tables of all settings with robustness grids; None where there are none."""
    settings = corrupted_settings(run)
    if not settings:
        return None
    pictures, tables, words = [], [], []
    for one in settings:
        reference = _reference(one, analysis)
        pictures.append(_pictures(one, reference, colours))
        tables.append(_table(one, reference))
        words += _cautions(one)
    return Section("Robustness", tuple(words), tuple(tables), "".join(pictures), _NOTES)


def _reference(one: Corrupted, analysis: Analysis) -> str:
    """The reference that the study compares with here, else the first initialisation."""
    found = [c.reference.initialisation for family in analysis.declaration.families for c in family.comparisons]
    return next((name for name in found if name in one.scores), next(iter(one.scores)))


def _pictures(one: Corrupted, reference: str, colours: Mapping[str, str]) -> str:
    """Score by severity, the paired difference to the reference, and every corruption in small."""
    x = (0, *one.severities)
    lines, differences = [], []
    for name in one.scores:
        drawn = [one.at(name, severity) for severity in x]
        lines.append(_line(name, colours[name], x, drawn, one.groups))
        if name != reference:
            paired = [a - one.at(reference, severity) for a, severity in zip(drawn, x, strict=True)]
            differences.append(_line(f"{name} − {reference}", colours[name], x, paired, one.groups))
    foot = "severity (0: clean)"
    plots = [line_plot(lines, Frame(f"{one.score}, mean over {len(one.corruptions)} corruptions", foot))]
    if differences:
        words = f"difference of the {one.score} to {reference}, paired within cases"
        plots.append(line_plot(differences, Frame(words, foot, zero=True)))
    values = [float(value[0]) for cells in one.scores.values() for value in cells.values()]
    small = [
        line_plot(
            [_line(name, colours[name], x, _of(one, name, corruption), 0) for name in one.scores],
            Frame(corruption.replace("_", " "), "", 200, 120),
            (min(values), max(values)),
        )
        for corruption in one.corruptions
    ]
    key = "".join(f"<span><i style='background:{colours[n]}'></i>{html.escape(n)}</span>" for n in one.scores)
    return (
        f"<h3>{html.escape(place(one.setting))}</h3><div class='key'>{key}</div>"
        f"<div class='curves'>{''.join(plots)}</div><div class='small'>{''.join(small)}</div>"
    )


def _of(one: Corrupted, name: str, corruption: str) -> list[np.ndarray]:
    return [one.scores[name][CLEAN], *(one.scores[name][corruption, severity] for severity in one.severities)]


def _line(name: str, colour: str, x: Sequence[float], drawn: Sequence[np.ndarray], groups: int) -> Line:
    y = [float(values[0]) for values in drawn]
    bands = [ends(values, groups) for values in drawn] if groups > 1 else []
    return Line(name, colour, x, y, [low for low, _ in bands], [high for _, high in bands])


def _table(one: Corrupted, reference: str) -> Table:
    rows = []
    for name in one.scores:
        numbers = [_shown(drawn, one.groups) for drawn in (one.at(name, 0), one.drop(name), one.kept(name))]
        more = NOTHING if name == reference else _shown(one.drop(name) - one.drop(reference), one.groups, signed=True)
        rows.append((name, str(one.seeds[name]), *numbers, more))
    header = (
        "initialisation",
        "seeds",
        f"clean {one.score}",
        "mean drop",
        "relative robustness",
        f"drop less that of {reference}, paired",
    )
    note = (
        f"{len(one.corruptions)} corruptions at severities {', '.join(map(str, one.severities))}, {one.groups} "
        "groups of "
        "cases; 95 % intervals in brackets, uncorrected."
    )
    return Table(f"Robustness: {place(one.setting)}", header, tuple(rows), 1, note)


def _shown(drawn: np.ndarray, groups: int, signed: bool = False) -> str:
    value = float(drawn[0])
    low, high = ends(drawn, groups)
    if not math.isfinite(value):
        return NOTHING
    text = fixed(value, 3, signed)
    return f"{text} ({fixed(low, 3, signed)} to {fixed(high, 3, signed)})" if math.isfinite(low) else text


def _cautions(one: Corrupted) -> list[str]:
    words = [f"{place(one.setting)}: not shown, because they cannot be compared: {'; '.join(one.left_out)}."]
    few = f"{place(one.setting)}: only {one.groups} groups of cases; these intervals are too narrow to be believed."
    return [*(words if one.left_out else []), *([few] if one.groups < _FEW_GROUPS else [])]


_NOTES = (
    "Intervals and bands: 2000 bootstrap draws of patients or scenes, the same draw for every initialisation, "
    "severity and "
    "seed, so that differences are taken within cases. Scores are meaned over seeds, and the trained models are "
    "taken as they "
    "are: the intervals say how far this holds for other patients, not for other seeds. Bands of two lines may "
    "overlap where "
    "their paired difference is clear: read the right plot.",
    "Trained networks only: a probe is not put to disturbed images.",
    "Mean drop: what is lost against the clean images, over all corruptions and severities alike. Relative "
    "robustness: score / "
    "clean score (errors: clean / error). docs/robustness.md has the corruptions.",
)
