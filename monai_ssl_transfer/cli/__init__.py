"""``ssl-transfer``: what ``python -m monai.bundle`` lacks. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import sys

from monai_ssl_transfer import __version__
from monai_ssl_transfer.cli.bundles import add_bundles, add_demo, add_runs
from monai_ssl_transfer.cli.data import add_audit, add_ingest, add_phantom, add_verify
from monai_ssl_transfer.cli.features import add_features
from monai_ssl_transfer.cli.label import add_label
from monai_ssl_transfer.cli.label_versions import add_label_versions
from monai_ssl_transfer.cli.probe import add_probe
from monai_ssl_transfer.cli.robustness import add_robustness
from monai_ssl_transfer.cli.study import add_study
from monai_ssl_transfer.cli.weights import add_weights
from monai_ssl_transfer.errors import UserError

COMMANDS = (
    add_ingest,
    add_audit,
    add_phantom,
    add_demo,
    add_runs,
    add_bundles,
    add_weights,
    add_probe,
    add_study,
    add_robustness,
    add_features,
    add_label,
    add_label_versions,
    add_verify,
)
"""In the order that ``ssl-transfer --help`` shows them."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-transfer",
        description="Self-supervised pretraining and transfer for medical images. "
        "Training, evaluation and inference are `python -m monai.bundle run` on a bundle.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; a ``UserError`` ends it with its sentence and exit code 2, any other error with a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UserError as error:
        print(f"ssl-transfer: {error}", file=sys.stderr)
        return 2
