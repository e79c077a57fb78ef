"""The command that serves bundles to annotators: label."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from monai_ssl_transfer.cli.commands import Commands
from monai_ssl_transfer.errors import LabelError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0",
            "MONAI_LABEL_TRACKING_ENABLED": "false"}  # fmt: skip
_AUTHENTICATION = (
    "clients need no password; to ask for one, set MONAI_LABEL_AUTH_ENABLE=true and MONAI_LABEL_AUTH_REALM_URI to a "
    "Keycloak realm (see docs/label.md)"
)


def _label(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("monailabel") is None:
        raise LabelError("MONAI Label is not installed: pip install 'monai-ssl-transfer[label]'.")
    from monai_ssl_transfer.label.workspace import prepare_app

    studies = arguments.studies
    if not studies.startswith(("http://", "https://")):
        if not Path(studies).is_dir():
            raise LabelError(f"there is no folder {studies}: make it, or give --studies the folder of your images.")
        studies = str(Path(studies).resolve())
    bundles = [one for one in arguments.bundles.split(",") if one]
    for name, state in prepare_app(arguments.app, bundles, arguments.encoder).items():
        weights = (arguments.app / "model" / name / "models" / "model.pt").is_file()
        kept = "as it is in the app folder" if state == "kept" else "copied into the app folder"
        print(f"{name}: {kept}{'' if weights else '; no trained weights yet, so it can be trained but not asked'}")
    start = [
        *(sys.executable, "-m", "monailabel.main", "start_server"),
        *("--app", str(arguments.app.resolve()), "--studies", studies),
        *("--host", arguments.host, "--port", str(arguments.port)),
        *("--conf", "zoo_source", "local", "--conf", "sam2", "false"),
    ]
    print(f"http://{arguments.host}:{arguments.port}: {_who_can_reach(arguments.host)}")
    if os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() not in ("true", "1"):
        print(_AUTHENTICATION)
    if arguments.prepare_only:
        print("start it with: " + " ".join(["python", *start[1:]]))
        return 0
    sys.stdout.flush()
    os.execve(sys.executable, start, {**_OFFLINE, **os.environ})
    return 1


def _who_can_reach(host: str) -> str:
    if host in _LOOPBACK:
        return "only this computer can reach it (--host 0.0.0.0 opens it to the network)"
    return "EVERYBODY who can reach this computer can read and change the images and labels"


def add_label(commands: Commands) -> None:
    label = commands.add_parser("label", help="serve bundles to annotators with MONAI Label")
    named = "shipped bundles by name (NAME+OVERLAY takes another network or scale), bundle folders or exported zips"
    label.add_argument("--bundles", required=True, metavar="NAMES", help=named)
    label.add_argument("--studies", required=True, metavar="DIR", help="folder of images, or a DICOMweb address")
    kept = "made if it is not there; what is in it is kept (default: label_app)"
    label.add_argument("--app", type=Path, default=Path("label_app"), metavar="DIR", help=kept)
    label.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this computer alone")
    label.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000")
    start = "pretrained encoder that training and embeddings start from"
    label.add_argument("--encoder", type=Path, default=None, metavar="FILE", help=start)
    label.add_argument("--prepare_only", action="store_true", help="make the app folder and print the command")
    label.set_defaults(run=_label)
