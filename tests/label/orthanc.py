"""A DICOMweb server of the tests: Debian's Orthanc with a generated CT series."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monai_ssl_transfer.data.phantoms.ct_scan import Phantom
from monai_ssl_transfer.data.phantoms.ct_writers import write_dicom_series

ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = "needs Orthanc with DICOMweb: apt-get install orthanc orthanc-dicomweb"
_START_SECONDS = 60


@dataclass
class Archive:
    """A running Orthanc.

    Args:
        url: of its DICOMweb service.
        root: of its own REST service.
    """

    url: str
    root: str

    def add(self, phantom: Phantom, folder: Path, patient: int = 0) -> tuple[str, str]:
        """Store a phantom as one CT series and return the UIDs of study and series."""
        import pydicom

        files = write_dicom_series(folder, phantom, patient=patient)
        for file in files:
            self.store(file)
        header = pydicom.dcmread(files[0], stop_before_pixels=True)
        return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)

    def store(self, file: Path) -> None:
        """Store one DICOM file."""
        request = urllib.request.Request(f"{self.root}/instances", data=file.read_bytes(), method="POST")
        with urllib.request.urlopen(request, timeout=30):
            pass

    def series(self, modality: str) -> list[str]:
        """Orthanc's own ids of the series of a modality."""
        found = []
        for one in self._get("/series"):
            if self._get(f"/series/{one}")["MainDicomTags"]["Modality"] == modality:
                found.append(one)
        return found

    def instances(self, series: str) -> list[bytes]:
        """The files of a series."""
        ids = self._get(f"/series/{series}")["Instances"]
        files = []
        for one in ids:
            with urllib.request.urlopen(f"{self.root}/instances/{one}/file", timeout=30) as answer:
                files.append(answer.read())
        return files

    def remove(self, series: str) -> None:
        """Remove a series."""
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.root}/series/{series}", method="DELETE"), timeout=30
        ):
            pass

    def _get(self, path: str) -> list[str] | dict:
        with urllib.request.urlopen(self.root + path, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def orthanc(folder: Path) -> Iterator[Archive]:
    """Start an empty Orthanc on loopback, and end it.

    Args:
        folder: gets its configuration, database and log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/system", process)
        yield Archive(f"http://127.0.0.1:{port}/dicom-web", f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"Orthanc ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not answer within {_START_SECONDS} s")
