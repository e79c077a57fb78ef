"""The command that lists the versions of a served bundle and brings an earlier one back: label-versions."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands
from monai_ssl_transfer.errors import LabelError


def _label_versions(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.label.versions import ModelVersions

    bundle = arguments.app / "model" / arguments.bundle
    if not bundle.is_dir():
        known = ", ".join(sorted(one.name for one in (arguments.app / "model").glob("*") if one.is_dir())) or "none"
        raise LabelError(f"{arguments.app} serves no bundle {arguments.bundle}: choose of {known}.")
    versions = ModelVersions(bundle, arguments.app / "versions" / arguments.bundle)
    if arguments.restore is not None:
        versions.restore(arguments.restore)
    in_use = versions.in_use()
    for one in versions.listed():
        trained = one.training
        figures = f", {trained['metric']} {trained['candidate']:.4f}" if trained else ""
        start = f", from {trained['started_from']}" if trained else ""
        print(f"{one.number} {one.time} {one.origin}{figures}{start}{' (in use)' if one == in_use else ''}")
    if in_use is None:
        print("the model in use is none of these" if versions.model.is_file() else "no model is in use")
    return 0


def add_label_versions(commands: Commands) -> None:
    """Register the command."""
    told = "list the versions of a bundle that annotators train, or bring one back"
    versions = commands.add_parser("label-versions", help=told)
    versions.add_argument("bundle", metavar="BUNDLE", help="name of the bundle in the app folder")
    app = "app folder of `ssl-transfer label` (default: label_app)"
    versions.add_argument("--app", type=Path, default=Path("label_app"), metavar="DIR", help=app)
    restore = "put this version into use; a running server takes it at the next request"
    versions.add_argument("--restore", type=int, default=None, metavar="N", help=restore)
    versions.set_defaults(run=_label_versions)
