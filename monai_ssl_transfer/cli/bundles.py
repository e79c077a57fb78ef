"""Commands on runs and bundles: demo, runs, bundles export."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands


def _demo(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.demo.run import run_demo

    print(f"open {run_demo(arguments.out, arguments.domain)} in a browser")
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.engines.records.run_tables import listing

    print(listing(arguments.folders or [Path("runs")], as_json=arguments.json))
    return 0


def _export_bundle(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.export.bundle import ExportOptions, archive_of, export_bundle
    from monai_ssl_transfer.export.statements import Statements

    said = ("authors", "data_source", "data_licence", "intended_use")
    options = ExportOptions(
        evaluation=arguments.evaluation,
        version=arguments.version,
        zip=arguments.zip,
        unmeasured=arguments.unmeasured,
        licence_allows_redistribution=arguments.licence_allows_redistribution,
        overwrite=arguments.overwrite,
        stated=Statements(**{name: getattr(arguments, name) for name in said}),
    )
    folder = export_bundle(arguments.name, arguments.weights, arguments.out, options)
    print(folder)
    if options.zip:
        print(archive_of(folder))
    return 0


def add_demo(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="the main job on generated data: table and HTML page")
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="emptied first (default: demo)")
    demo.add_argument("--domain", choices=("ct", "endoscopy"), default="ct", help="default: ct")
    demo.set_defaults(run=_demo)


def add_runs(commands: Commands) -> None:
    runs = commands.add_parser("runs", help="what was pretrained: a table of runs, or the epochs of one")
    where = "output_dir of a run, for its epochs; or folders above several, for a table (default: runs)"
    runs.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help=where)
    runs.add_argument("--json", action="store_true", help="every figure, as JSON")
    runs.set_defaults(run=_runs)


def add_bundles(commands: Commands) -> None:
    bundles = commands.add_parser("bundles", help="hand a finished run out as a MONAI bundle")
    kinds = bundles.add_subparsers(dest="kind", required=True, metavar="KIND")
    export = kinds.add_parser("export", help="a self-contained bundle: inference needs MONAI alone")
    export.add_argument("name", metavar="NAME", help="bundle that was run, such as ct_liver_segmentation")
    export.add_argument("--weights", type=Path, required=True, metavar="RUN", help="output_dir of the training")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle's folder goes into it")
    export.add_argument("--zip", action="store_true", help="also write <name>_v<version>.zip")
    export.add_argument("--evaluation", type=Path, default=None, metavar="DIR", help="default: eval in RUN")
    export.add_argument("--version", default="", metavar="V", help="of the exported bundle (default: the bundle's)")
    export.add_argument("--unmeasured", action="store_true", help="export although nothing is measured")
    stated = "you have the right to hand on weights whose licence reserves it; recorded in the bundle"
    export.add_argument("--licence-allows-redistribution", action="store_true", help=stated)
    export.add_argument("--authors", default="", metavar="NAMES", help="of the model, for metadata and README")
    export.add_argument("--data-source", default="", metavar="TEXT", help="the data that the model was trained on")
    export.add_argument("--data-licence", default="", metavar="TEXT", help="their licence, such as 'CC BY 4.0'")
    export.add_argument("--intended-use", default="", metavar="TEXT", help="default: the bundle's (research)")
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    export.set_defaults(run=_export_bundle)
