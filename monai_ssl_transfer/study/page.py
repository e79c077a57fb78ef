"""The report as one HTML page that needs no network."""

from __future__ import annotations

import html
from collections.abc import Iterable

from monai_ssl_transfer.study.analysis import Analysis, Compared, FamilyResult
from monai_ssl_transfer.study.answer import Answer, answer
from monai_ssl_transfer.study.comparison_tables import case_table, family_table, margin_table
from monai_ssl_transfer.study.curves import curve_svg, curves
from monai_ssl_transfer.study.forest import colours_of, forest
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.tables import (
    Table,
    experiment_table,
    experiments,
    headline_table,
    missing_lines,
)

STYLE = """
:root{--line:#d9d9d9;--soft:#666}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1.2rem 1rem 4rem;color:#1b1b1b;
background:#fff}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0}h2{font-size:1.25rem;margin:2.4rem 0 .4rem}
h3{font-size:1rem;margin:1.5rem 0 .3rem}
p,ul{max-width:48rem}li{margin:.25rem 0}.soft,.note{color:var(--soft);font-size:.86rem}
.answer{border-left:4px solid #0072B2;padding:.1rem 0 .1rem 1rem;margin:1rem 0}
.scroll{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}
th{font-weight:600;border-bottom:1.5px solid #555;vertical-align:bottom;white-space:normal;min-width:4.5rem}
th.name,td.name{text-align:left}tr.shown td{font-weight:650;background:#eef5fb}
nav{font-size:.9rem}nav a{margin-right:1rem}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.86rem}.key i{display:inline-block;width:.8rem;height:.8rem;
border-radius:50%;margin-right:.35rem;vertical-align:-1px}
.forest .where{font-size:.8rem;font-weight:600;margin-top:.3rem}
.row{display:grid;grid-template-columns:11rem 1fr 13rem;gap:.5rem;align-items:center;font-size:.8rem}
.row svg{width:100%;height:22px;overflow:visible;display:block}.say{font-variant-numeric:tabular-nums}
.grid{stroke:#e4e4e4}.zero{stroke:#444;stroke-width:1.5}svg text{font:11px system-ui,sans-serif;fill:#444}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:1rem}
figure{margin:0}figcaption{font-size:.82rem;font-weight:600}figure svg{width:100%;height:auto;display:block}
@media(max-width:640px){.row{grid-template-columns:6.6rem 1fr;gap:.1rem .4rem}.row .say{grid-column:2;color:var(--soft);
margin-bottom:.25rem}body{font-size:15px}}
@media print{@page{margin:13mm}@page wide{size:A4 landscape;margin:10mm}#comparisons{page:wide}
body{max-width:none;padding:0;font-size:10pt}.scroll{overflow:visible}nav{display:none}
table{font-size:6.6pt;width:100%}th,td{padding:.1rem .25rem;white-space:normal;min-width:0}th{min-width:0}
td:not(.name){white-space:nowrap}h2,h3,.where{break-after:avoid}tr,.row,figure{break-inside:avoid}
tr.shown td,.forest *,.key i{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.curves{grid-template-columns:repeat(3,1fr)}.row{grid-template-columns:9rem 1fr 11rem;font-size:7.5pt}}
"""


_SENTENCES = 8


def report_page(analysis: Analysis) -> str:
    """Return the page: answer, plots, tables, what was not run, how it was computed."""
    declaration = analysis.declaration
    names = list(dict.fromkeys(one.cell.initialisation for one in declaration.cells))
    colours = colours_of(names)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in declaration.notes)
    sections = {
        "Answer": _answers(answer(result) for result in analysis.families),
        "Cautions": f"<ul>{notes}</ul>" if notes else "",
        "Differences": _forests(analysis, colours),
        "Label efficiency": _curves(analysis, colours),
        "Results": _experiments(analysis),
        "Comparisons": _families(analysis),
        "Published headline numbers": _optional(headline_table(analysis)),
        "Not run": _missing(analysis),
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
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def html_table(table: Table) -> str:
    """Return a table with its title and note as HTML; it scrolls within itself where it is too wide."""

    def line(cells: tuple[str, ...], tag: str, shown: bool = False) -> str:
        texts = "".join(
            f"<{tag}{' class=name' if index < table.names else ''}>{html.escape(_minus(cell))}</{tag}>"
            for index, cell in enumerate(cells)
        )
        return f"<tr{' class=shown' if shown else ''}>{texts}</tr>"

    rows = "".join(line(row, "td", index in table.bold) for index, row in enumerate(table.rows))
    note = f"<p class='note'>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f"<h3>{html.escape(table.title)}</h3><div class='scroll' tabindex='0'><table><thead>{line(table.header, 'th')}"
        f"</thead><tbody>{rows}</tbody></table></div>{note}"
    )


def _minus(cell: str) -> str:
    """A true minus sign where a number begins with a hyphen."""
    return " ".join(
        word.replace("-", "−", 1) if word.lstrip("(")[:1] == "-" and word.lstrip("(")[1:2].isdigit() else word
        for word in cell.split(" ")
    )


def _answers(answers: Iterable[Answer]) -> str:
    parts = []
    for one in answers:
        shown = "".join(f"<li>{html.escape(_minus(sentence))}</li>" for sentence in one.shown[:_SENTENCES])
        more = len(one.shown) - _SENTENCES
        shown += f"<li>… and {more} more: the marked rows of “Comparisons”.</li>" if more > 0 else ""
        parts.append(
            f"<div class='answer'><h3>{html.escape(one.family)}</h3>"
            f"<p><b>{html.escape(one.verdict)}</b></p><p>{html.escape(one.lead)}</p>"
            f"{f'<ul>{shown}</ul>' if shown else ''}<p>{html.escape(_minus(one.not_shown))}</p>"
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
    tables = (
        table
        for result in analysis.families
        for table in (family_table(result), margin_table(result), case_table(result))
        if table is not None
    )
    return "".join(html_table(table) for table in tables)


def _optional(table: Table | None) -> str:
    return "" if table is None else html_table(table)


def _missing(analysis: Analysis) -> str:
    lines = missing_lines(analysis)
    if not lines:
        return "<p>Every declared run has its values.</p>"
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<p>Declared runs without a value; nothing was put in their place.</p><ul>{items}</ul>"


def methods() -> tuple[str, ...]:
    """How the numbers were computed, in words."""
    return (
        "A run is the unit: one training with one seed. Means, standard deviations (n − 1) and tests are over runs "
        "that took place.",
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
