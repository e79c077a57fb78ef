"""Commands on studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands
from monai_ssl_transfer.cli.study_run import add_plan_and_run


def _import_study(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.study.published.importing import ImportOptions, import_study

    options = ImportOptions(
        reference=arguments.reference,
        title=arguments.title,
        smaller_is_better=arguments.smaller_is_better,
        margins=dict(arguments.margin),
        primary=arguments.primary,
        overwrite=arguments.overwrite,
    )
    results, declaration = import_study(arguments.file, arguments.out, options)
    print(f"{arguments.out}: {len(results)} values of {len(results.cells())} cells: {declaration.title}")
    return 0


def _margin(text: str) -> tuple[str, float]:
    metric, found, value = text.rpartition("=")
    if not found or not float(value) > 0:
        raise ValueError(text)
    return metric, float(value)


def _report_study(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.study.report.writing import write_report

    print(f"open {write_report(arguments.study)} in a browser")
    return 0


def add_study(commands: Commands) -> None:
    study = commands.add_parser("study", help="which initialisation is better: results, statistics, report")
    kinds = study.add_subparsers(dest="kind", required=True, metavar="KIND")
    brought = kinds.add_parser("import", help="make a study of a table of runs, or of the published runs of RadNet")
    brought.add_argument(
        "file", type=Path, metavar="FILE", help="tidy .csv or .parquet (docs/studies.md), or RadNet's .json"
    )
    brought.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    brought.add_argument(
        "--reference", default="", metavar="NAME", help="initialisation that the others are compared with"
    )
    brought.add_argument("--title", default="", help="of the report (default: the file's name)")
    small = "metric of which small values are good; can be repeated"
    brought.add_argument("--smaller-is-better", action="append", default=[], metavar="METRIC", help=small)
    stated = "largest difference that does not matter, stated before the runs; can be repeated"
    brought.add_argument("--margin", action="append", type=_margin, default=[], metavar="METRIC=VALUE", help=stated)
    tested = "metric that is tested, the others are only shown; can be repeated (default: all are tested)"
    brought.add_argument("--primary", action="append", default=[], metavar="METRIC", help=tested)
    brought.add_argument("--overwrite", action="store_true", help="replace an earlier import")
    brought.set_defaults(run=_import_study)
    add_plan_and_run(kinds)
    report = kinds.add_parser("report", help="page, Markdown, LaTeX and CSV of a study")
    report.add_argument("study", type=Path, metavar="DIR", help="folder of the study")
    report.set_defaults(run=_report_study)
