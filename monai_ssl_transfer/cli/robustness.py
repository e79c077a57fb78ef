"""Commands on corruptions: the table of them, and a trained model under them."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands


def _corruptions(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.views.corruptions.severities import markdown_table

    if arguments.out is None:
        print(markdown_table(arguments.domain))
        return 0
    from monai_ssl_transfer.views.corruptions.sheet import write_sheet

    print(write_sheet(arguments.domain, arguments.out, arguments.images, arguments.corruptions))
    return 0


def _robustness(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.evaluation.robustness_grid import GridOptions, parsed_settings, run_grid
    from monai_ssl_transfer.evaluation.robustness_report import markdown, write_report

    options = GridOptions(
        bundle=arguments.bundle,
        weights=arguments.weights,
        data=tuple(arguments.data),
        out=arguments.out,
        corruptions=tuple(arguments.corruptions),
        severities=tuple(arguments.severities),
        overlays=tuple(arguments.config),
        settings=parsed_settings(arguments.set),
        seed=arguments.seed,
    )
    result = run_grid(options)
    page = write_report(result, arguments.out, arguments.bundle)
    print(markdown(result, arguments.bundle) + f"\nopen {page} in a browser")
    return 0


def add_robustness(commands: Commands) -> None:
    robustness = commands.add_parser("robustness", help="a trained task model under corruptions of five severities")
    robustness.add_argument("--bundle", required=True, metavar="NAME", help="such as endoscopy_polyp_segmentation")
    robustness.add_argument("--weights", type=Path, required=True, metavar="RUN", help="output_dir of the training")
    robustness.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="data set of the test")
    robustness.add_argument("--out", type=Path, required=True, metavar="DIR", help="finished cells in it are kept")
    robustness.add_argument("--corruptions", nargs="+", default=[], metavar="NAME", help="default: all that suit")
    robustness.add_argument("--severities", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N", help="1 to 5")
    overlays = "overlays of the training, for a run without config.json"
    robustness.add_argument(
        "--config", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help=overlays
    )
    settings = "further settings of the evaluation, such as evaluate_part=all or image_size=96"
    robustness.add_argument("--set", nargs="+", action="extend", default=[], metavar="ID=VALUE", help=settings)
    robustness.add_argument("--seed", type=int, default=0, help="of the corruptions")
    robustness.set_defaults(run=_robustness)
    sheet = commands.add_parser("corruptions", help="the table of corruptions, or a contact sheet of them")
    sheet.add_argument("--domain", choices=("photograph", "ct", "mr"), required=True)
    sheet.add_argument("--out", type=Path, default=None, metavar="PICTURE", help="write a contact sheet")
    own = "photographs, or NIfTI volumes of CT or MR, for the sheet (default: generated ones)"
    sheet.add_argument("--images", type=Path, nargs="+", default=[], metavar="FILE", help=own)
    sheet.add_argument("--corruptions", nargs="+", default=[], metavar="NAME", help="default: all of the domain")
    sheet.set_defaults(run=_corruptions)
