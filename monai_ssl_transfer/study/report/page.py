"""The report as one HTML page that needs no network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from monai_ssl_transfer.study.report.answer import Answer, answer
from monai_ssl_transfer.study.report.comparison_tables import comparison_tables
from monai_ssl_transfer.study.report.curves import curve_svg, curves
from monai_ssl_transfer.study.report.forest import colours_of, forest
from monai_ssl_transfer.study.report.html_tables import html_table, minus_signs
from monai_ssl_transfer.study.report.page_style import STYLE
from monai_ssl_transfer.study.report.recommendation import recommendations
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.report.tables import (
    Table,
    experiment_table,
    experiments,
    headline_table,
    missing_lines,
)
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.statistics.analysis import Analysis, Compared, FamilyResult

_SENTENCES = 8


def report_page(analysis: Analysis, parts: Sequence[Section] = (), unfinished: Sequence[str] = ()) -> str:
    """Return the page: recommendation, answer, plots, tables, what was not run, how it was computed.

    Args:
        analysis: every number.
        parts: further sections, of a study that was run here.
        unfinished: what became of the declared runs without a value; without it they are listed by the declaration.
    """
    declaration = analysis.declaration
    colours = study_colours(analysis)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in declaration.notes)
    sections = {
        "Answer": _answers(answer(result) for result in analysis.families),
        "Cautions": f"<ul>{notes}</ul>" if notes else "",
        "Differences": _forests(analysis, colours),
        "Label efficiency": _curves(analysis, colours),
        "Results": _experiments(analysis),
        "Comparisons": _families(analysis),
        "Published headline numbers": _optional(headline_table(analysis)),
        **{part.title: section_html(part) for part in parts},
        "Not run": _missing(unfinished or missing_lines(analysis)),
        "How it was computed": _methods(),
    }
    kept = {name: text for name, text in sections.items() if text}
    links = "".join(f"<a href='#{_anchor(name)}'>{name}</a>" for name in kept)
    body = "".join(f"<section id='{_anchor(name)}'><h2>{name}</h2>{text}</section>" for name, text in kept.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(declaration.title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(declaration.title)}</h1><p class='soft'>{html.escape(declaration.source)}</p>"
        f"{_in_short(analysis)}<nav>{links}</nav>{body}</body></html>\n"
    )


def study_colours(analysis: Analysis) -> dict[str, str]:
    """Return the colour of every declared initialisation, the same in all pictures of a report."""
    return colours_of(list(dict.fromkeys(one.cell.initialisation for one in analysis.declaration.cells)))


def section_html(part: Section) -> str:
    """Return a section without its heading as HTML."""
    words = "".join(f"<p>{html.escape(minus_signs(one))}</p>" for one in part.paragraphs)
    notes = "".join(f"<p class='note'>{html.escape(one)}</p>" for one in part.notes)
    return f"{words}{part.pictures}{''.join(html_table(table) for table in part.tables)}{notes}"


def _in_short(analysis: Analysis) -> str:
    """The advice of every family, before anything else."""
    several = len(analysis.families) > 1
    items = []
    for one in (two for result in analysis.families for two in recommendations(result)):
        family = f"<p class='family'>{html.escape(one.family)}</p>" if several else ""
        sure = "".join(f"<li>{html.escape(minus_signs(line))}</li>" for line in one.certainty)
        advice = f"<p class='advice'>{html.escape(minus_signs(one.advice))}</p>"
        reason = f"<p>{html.escape(minus_signs(one.reason))}</p>"
        items.append(f"{family}{advice}{reason}{f'<ul>{sure}</ul>' if sure else ''}")
    return f"<section class='short' id='in-short'><h2>In short</h2>{''.join(items)}</section>" if items else ""


def _answers(answers: Iterable[Answer]) -> str:
    parts = []
    for one in answers:
        shown = "".join(f"<li>{html.escape(minus_signs(sentence))}</li>" for sentence in one.shown[:_SENTENCES])
        more = len(one.shown) - _SENTENCES
        shown += f"<li>… and {more} more: the marked rows of “Comparisons”.</li>" if more > 0 else ""
        parts.append(
            f"<div class='answer'><h3>{html.escape(one.family)}</h3>"
            f"<p><b>{html.escape(one.verdict)}</b></p><p>{html.escape(one.lead)}</p>"
            f"{f'<ul>{shown}</ul>' if shown else ''}<p>{html.escape(minus_signs(one.not_shown))}</p>"
            f"{f'<p>{html.escape(one.no_worse)}</p>' if one.no_worse else ''}</div>"
        )
    return "".join(parts)


def _forests(analysis: Analysis, colours: dict[str, str]) -> str:
    """One forest plot per experiment and ruler, with Holm's p of the first family."""
    parts = []
    for name in experiments(analysis):
        rows = [
            (one, p)
            for result in analysis.families
            for one, p in zip(result.compared, result.holm, strict=True)
            if one.comparison.candidate.study == name and _first(analysis, one, result)
        ]
        reference = " or ".join(dict.fromkeys(one.comparison.reference.initialisation for one, _ in rows))
        for ruler in dict.fromkeys(one.metric.ruler for one, _ in rows):
            chosen = _settings_together([(one, p) for one, p in rows if one.metric.ruler == ruler])
            described = analysis.declaration.descriptions.get(name, "")
            title = ": ".join(part for part in (name, described) if part) or "All comparisons"
            parts.append(f"<h3>{html.escape(title)}; against {html.escape(reference)}</h3>{forest(chosen, colours)}")
    if not parts:
        return ""
    note = (
        "<p class='note'>Difference of the means with its 95 % interval (Welch, not corrected). Filled: Holm's p "
        "within the first family that names the comparison is below 0.05. An arrow: the interval goes on beyond the "
        "axis.</p>"
    )
    return note + "".join(parts)


def _settings_together(rows: list[tuple[Compared, float]]) -> list[tuple[Compared, float]]:
    """Rows of the same reference cell and metric one after the other, else in their order."""
    order = {key: place for place, key in enumerate(dict.fromkeys(_setting(one) for one, _ in rows))}
    return sorted(rows, key=lambda row: order[_setting(row[0])])


def _setting(one: Compared) -> tuple[Cell, str]:
    return one.comparison.reference, one.comparison.metric


def _first(analysis: Analysis, one: Compared, result: FamilyResult) -> bool:
    found = analysis.first_result(one.comparison)
    return found is not None and found[2] is result.family


def _curves(analysis: Analysis, colours: dict[str, str]) -> str:
    drawn = curves(analysis)
    if not drawn:
        return ""
    names = dict.fromkeys(name for curve in drawn for name in curve.points)
    key = "".join(f"<span><i style='background:{colours[name]}'></i>{html.escape(name)}</span>" for name in names)
    figures = "".join(curve_svg(curve, colours) for curve in drawn)
    note = "<p class='note'>Every point is a run; lines join the means. The axis of the labels is logarithmic.</p>"
    return f"<div class='key'>{key}</div>{note}<div class='curves'>{figures}</div>"


def _experiments(analysis: Analysis) -> str:
    return "".join(
        html_table(experiment_table(analysis, name, declared)) for name, declared in experiments(analysis).items()
    )


def _families(analysis: Analysis) -> str:
    return "".join(html_table(table) for table in comparison_tables(analysis))


def _optional(table: Table | None) -> str:
    return "" if table is None else html_table(table)


def _missing(lines: Sequence[str]) -> str:
    if not lines:
        return "<p>Every declared run has its values.</p>"
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<p>Declared runs without a value; nothing was put in their place.</p><ul>{items}</ul>"


def methods() -> tuple[str, ...]:
    """How the numbers were computed, in words."""
    return (
        "A run is the unit: one training with one seed. Means, standard deviations (n − 1) and tests are over runs "
        "that took place.",
        "Tested are the primary metrics of a task; differences in its other metrics are shown with their intervals "
        "only.",
        "Differences: Welch's t test, two-sided, with its own interval. It takes runs as normally distributed, which "
        "few runs cannot show.",
        "Effect size: Hedges' g with the interval of the noncentral t, equal spreads assumed.",
        "Many comparisons: Holm and Benjamini-Hochberg within each family as it was declared. A comparison that was "
        "not run, or has no spread, counts as p = 1.",
        "Findable: the smallest true difference that a two-sided test at 5 % finds with 80 % probability, from the "
        "noncentral t with the spread seen. With few runs that spread is itself uncertain.",
        "Seeds say how far training varies, not how far a result holds for other patients; only values per case do.",
    )


def _methods() -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in methods())}</ul>"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
