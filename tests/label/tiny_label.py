"""An app folder of tiny bundles with random weights, folders of phantoms, and a real server on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from monai_ssl_transfer.data.images.class_record import record_classes
from monai_ssl_transfer.data.phantoms.ct_dataset import write_lits_layout
from monai_ssl_transfer.data.phantoms.ct_scan import PhantomOptions
from monai_ssl_transfer.data.phantoms.endoscopy_layouts import write_kvasir_seg
from monai_ssl_transfer.engines.records.run_config import config_text
from monai_ssl_transfer.engines.transfer.fine_tuning import save_model
from monai_ssl_transfer.export.bundle import ExportOptions, export_bundle
from monai_ssl_transfer.label.workspace import prepare_app
from monai_ssl_transfer.weights.load_record import write_load_record

ROOT = Path(__file__).resolve().parents[2]
POLYPS, LIVER, IMAGES = "endoscopy_polyp_segmentation", "ct_liver_segmentation", "image_classification"
DETECTION = "endoscopy_polyp_detection"
CLASSES = ["left", "middle", "right"]
TINY: dict[str, dict[str, Any]] = {
    POLYPS: {"network_def#backbone": "resnet18", "image_size": 64, "batch_size": 2},
    LIVER: {"network_def#backbone": "resnet18", "pixel_spacing": 8.0, "image_size": 32, "batch_size": 2},
    IMAGES: {
        "overlay": "configs/networks/classifier_resnet18.json",
        "classes": CLASSES,
        "image_size": 48,
        "batch_size": 2,
    },
}
_START_SECONDS = 300.0


def export_tiny(name: str, folder: Path) -> Path:
    """Export a bundle as a finished run would be, with seeded random weights and a small network."""
    settings = dict(TINY[name])
    files = [str(ROOT / "bundles" / name / "configs" / "train.json")]
    if overlay := settings.pop("overlay", None):
        files.append(str(ROOT / overlay))
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.update({**settings, "device": "cpu", "num_workers": 0})
    parser.resolve_macro_and_relative_ids()
    run = folder / "runs" / name
    (run / "models").mkdir(parents=True)
    (run / "config.json").write_text(config_text(parser))
    write_load_record(run, None, None)
    if "classes" in settings:
        record_classes(settings["classes"], False, run)
    torch.manual_seed(0)
    save_model(parser.get_parsed_content("network_def"), run / "models" / "model.pt")
    return export_bundle(name, run, folder / "exported", ExportOptions(unmeasured=True))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the exported bundles, by name."""
    folder = tmp_path_factory.mktemp("label")
    for name in TINY:
        export_tiny(name, folder)
    return folder / "exported"


@pytest.fixture(scope="session")
def label_app(exported: Path) -> Path:
    """App folder with the tiny bundles, and the polyp detection without weights."""
    app = exported.parent / "app"
    prepare_app(app, [*(str(exported / name) for name in TINY), DETECTION])
    return app


@pytest.fixture(scope="session")
def studies_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flat folder of six photographs, 80 x 64: frame_0.jpg ..., the last two as PNG; their masks in ../masks."""
    folder = tmp_path_factory.mktemp("frames")
    write_kvasir_seg(folder / "kvasir", 6, size=96)
    studies, masks = folder / "studies", folder / "masks"
    studies.mkdir()
    masks.mkdir()
    from PIL import Image

    for number, file in enumerate(sorted((folder / "kvasir").rglob("images/*"))):
        (mask,) = (folder / "kvasir").rglob(f"masks/{file.name}")
        with Image.open(file) as picture, Image.open(mask) as drawn:
            side = picture.convert("RGB").crop((0, 0, 80, 64))
            side.save(studies / f"frame_{number}.{'png' if number > 3 else 'jpg'}")
            half = drawn.convert("L").crop((0, 0, 80, 64)).point(lambda value: 255 if value > 127 else 0)
            half.save(masks / f"frame_{number}.png")
    return studies


@pytest.fixture(scope="session")
def studies_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flat folder of three CT phantoms, volume-0.nii.gz ...; their masks in ../masks under the same names."""
    folder = tmp_path_factory.mktemp("ct")
    options = PhantomOptions(size=48, slices=8, slice_spacing=(12.0, 14.0), tumour_share=1)
    write_lits_layout(folder / "lits", 3, options)
    studies, masks = folder / "studies", folder / "masks"
    studies.mkdir()
    masks.mkdir()
    for file in sorted((folder / "lits").rglob("volume-*.nii*")):
        shutil.copyfile(file, studies / file.name)
        label = file.with_name(file.name.replace("volume", "segmentation"))
        shutil.copyfile(label, masks / file.name)
    return studies


@dataclass
class LabelServer:
    """A running server.

    Args:
        url: of it.
        process: its own process.
        log_file: what it said.
        studies: its folder.
        app: its app folder.
    """

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path
    studies: Path
    app: Path

    @property
    def client(self) -> Any:
        """MONAI Label's own client."""
        from monailabel.client import MONAILabelClient

        return MONAILabelClient(self.url, tmpdir=str(self.log_file.parent))

    def log(self) -> str:
        """All that the server has printed."""
        return self.log_file.read_text(errors="replace")


@contextmanager
def label_server(app: Path, studies: Path | str, **conf: str) -> Iterator[LabelServer]:
    """Start MONAI Label on a free port of loopback, and end it with its children.

    Args:
        app: app folder.
        studies: folder or address.
        conf: ``--conf`` settings; names in capitals become environment variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in conf.items():
        command += [] if name.isupper() else ["--conf", name, value]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MONAI_LABEL_TRACKING_ENABLED": "false"}
    environment |= {name: value for name, value in conf.items() if name.isupper()}
    log_file = Path(app).parent / f"server-{port}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=Path(app).parent)
    server = LabelServer(f"http://127.0.0.1:{port}", process, log_file, Path(str(studies)), Path(app))
    try:
        _wait(server)
        yield server
    finally:
        end_tree(process)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    import psutil  # comes with MONAI Label

    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        for one in children:
            one.send_signal(signal.SIGKILL)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait(server: LabelServer) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}:\n{server.log()[-4000:]}")
        try:
            with urllib.request.urlopen(f"{server.url}/info/", timeout=60):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the server did not answer within {_START_SECONDS} s:\n{server.log()[-4000:]}")


@pytest.fixture(scope="session")
def frames_server(
    label_app: Path, studies_frames: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelServer]:
    """A shared server of photographs, over its own copy of the folder."""
    yield from _served(label_app, studies_frames, tmp_path_factory.mktemp("served") / "frames")


@pytest.fixture(scope="session")
def volumes_server(
    label_app: Path, studies_ct: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelServer]:
    """A shared server of CT volumes, over its own copy of the folder."""
    yield from _served(label_app, studies_ct, tmp_path_factory.mktemp("served") / "ct")


def _served(app: Path, source: Path, studies: Path) -> Iterator[LabelServer]:
    pytest.importorskip("monailabel", reason="needs the label extra")
    shutil.copytree(source, studies)
    with label_server(app, studies) as server:
        yield server
