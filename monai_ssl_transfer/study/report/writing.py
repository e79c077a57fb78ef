"""Write a study's report: page, Markdown, LaTeX and the comparisons as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.study.declaration import DECLARATION_NAME, read_declaration
from monai_ssl_transfer.study.report.answer import answer
from monai_ssl_transfer.study.report.comparison_tables import comparison_tables
from monai_ssl_transfer.study.report.declared import declared
from monai_ssl_transfer.study.report.degenerate import degenerate
from monai_ssl_transfer.study.report.embedding_section import embedding_section
from monai_ssl_transfer.study.report.interval_section import interval_section
from monai_ssl_transfer.study.report.outcomes import reasons
from monai_ssl_transfer.study.report.overlay_section import overlay_section
from monai_ssl_transfer.study.report.page import methods, report_page, study_colours
from monai_ssl_transfer.study.report.ranking_section import ranking_section
from monai_ssl_transfer.study.report.recommendation import recommendations
from monai_ssl_transfer.study.report.robustness_section import robustness_section
from monai_ssl_transfer.study.report.run_folder import RunFolder, read_run_folder
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.report.shots_section import shots_section
from monai_ssl_transfer.study.report.spent import spent
from monai_ssl_transfer.study.report.tables import (
    Table,
    experiment_table,
    experiments,
    headline_table,
    missing_lines,
)
from monai_ssl_transfer.study.report.text_tables import latex_table, markdown_table
from monai_ssl_transfer.study.results import RESULTS_NAME, read_results
from monai_ssl_transfer.study.statistics.analysis import Analysis, Compared, analyse

REPORT_FOLDER = "report"


def write_report(study: Path) -> Path:
    """Write ``report/`` into a study's folder: report.html, report.md, tables.tex and comparisons.csv.

    Args:
        study: folder with results.parquet and study.json.

    Returns:
        The page.

    Raises:
        DataError: one of the two is not there or damaged.
    """
    declaration = read_declaration(study / DECLARATION_NAME)
    analysis = analyse(read_results(study / RESULTS_NAME), declaration)
    run = read_run_folder(study, declaration)
    parts = [] if run is None else run_sections(run, analysis)
    unfinished = [] if run is None else reasons(run, analysis)
    folder = study / REPORT_FOLDER
    tables = [*report_tables(analysis), *(table for part in parts for table in part.tables)]
    files = {
        "report.md": markdown_report(analysis, parts, unfinished),
        "tables.tex": "\n".join(latex_table(table) for table in tables),
        "comparisons.csv": comparisons_csv(analysis),
        "report.html": report_page(analysis, parts, unfinished),
    }
    for name, text in files.items():
        _write(folder / name, text)
    return folder / "report.html"


def run_sections(run: RunFolder, analysis: Analysis) -> list[Section]:
    """Return what a study that was run here adds to its table: each part where its files are there."""
    found = (
        interval_section(analysis),
        shots_section(run, analysis, study_colours(analysis)),
        degenerate(analysis),
        robustness_section(run, analysis, study_colours(analysis)),
        overlay_section(run, analysis),
        embedding_section(run, analysis),
        ranking_section(run, analysis),
        spent(run),
        declared(run, analysis),
    )
    return [one for one in found if one is not None]


def report_tables(analysis: Analysis) -> Iterator[Table]:
    """Yield every table of a report in its order."""
    for name, cells in experiments(analysis).items():
        yield experiment_table(analysis, name, cells)
    yield from comparison_tables(analysis)
    headline = headline_table(analysis)
    if headline is not None:
        yield headline


def markdown_report(analysis: Analysis, sections: Sequence[Section] = (), unfinished: Sequence[str] = ()) -> str:
    """Return the report without its pictures as Markdown.

    Args:
        analysis: every number.
        sections: of a study that was run here.
        unfinished: what became of the declared runs without a value; without it they are listed by the declaration.
    """
    parts = [f"# {analysis.declaration.title}", analysis.declaration.source, "## In short"]
    for short in (one for result in analysis.families for one in recommendations(result)):
        parts += [
            f"**{short.advice}** ({short.family})",
            short.reason,
            "\n".join(f"- {line}" for line in short.certainty),
        ]
    parts.append("## Answer")
    for one in (answer(result) for result in analysis.families):
        shown = "\n".join(f"- {sentence}" for sentence in one.shown)
        parts += [f"### {one.family}", f"**{one.verdict}**", one.lead, *([shown] if shown else []), one.not_shown]
        parts += [one.no_worse] if one.no_worse else []
    parts += ["## Tables", *(markdown_table(table) for table in report_tables(analysis))]
    for section in sections:
        tables = (markdown_table(table) for table in section.tables)
        parts += [f"## {section.title}", *section.paragraphs, *tables, *section.notes]
    parts.append("## Not run")
    missing = list(unfinished) or missing_lines(analysis)
    parts.append("\n".join(f"- {line}" for line in missing) if missing else "Every declared run has its values.")
    parts += ["## How it was computed", "\n".join(f"- {line}" for line in methods())]
    if analysis.declaration.notes:
        parts += ["## Cautions", "\n".join(f"- {note}" for note in analysis.declaration.notes)]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def comparisons_csv(analysis: Analysis) -> str:
    """Return every comparison with unrounded numbers, in the unit of the table of results.

    One that is only shown has no family and no corrected p.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = "family,study,task,protocol,fraction,metric,candidate,reference,n_candidate,n_reference,mean_candidate,"
    columns += "mean_reference,difference,low,high,g,g_low,g_high,p,p_holm,q_bh,findable"
    writer.writerow(columns.split(","))
    for result in analysis.families:
        for one, holm, bh in zip(result.compared, result.holm, result.benjamini_hochberg, strict=True):
            writer.writerow([result.family.name, *_csv_cells(one), holm, bh, one.smallest])
    writer.writerows(["", *_csv_cells(one), "", "", one.smallest] for one in analysis.shown)
    return stream.getvalue()


def _csv_cells(one: Compared) -> list[float | str]:
    cell, difference = one.comparison.candidate, one.difference
    names: list[float | str] = [cell.study, cell.task, cell.protocol, cell.fraction, one.comparison.metric]
    names += [cell.initialisation, one.comparison.reference.initialisation]
    numbers: list[float | str] = [""] * 11
    if difference is not None:
        a, b = difference.candidate, difference.reference
        numbers = [a.n, b.n, a.mean, b.mean, difference.value, difference.low, difference.high]
        numbers += [difference.g, difference.g_low, difference.g_high, difference.p]
    return [*names, *numbers]


def _write(file: Path, text: str) -> None:
    write_durably(file, lambda stream: stream.write(text.encode()))
