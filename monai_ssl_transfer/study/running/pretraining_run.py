"""The job of a pretraining that cells of a study wait for."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.study.planning.identity import changed_parts
from monai_ssl_transfer.study.records import write_record
from monai_ssl_transfer.study.running.data_steps import DONE_FILE

ENCODER_FILE = "encoder.safetensors"
_STARTED_FILE = "started.json"


def run_pretraining(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a pretraining bundle, or go on with it exactly where it was interrupted.

    Args:
        spec: "folder", "files" of the configuration, "settings", "identity" and "any_code", all as JSON.

    Returns:
        {"encoder": file, "seconds": all together}.

    Raises:
        StudyError: the bundle wrote no encoder.
    """
    from monai_ssl_transfer.engines.bundle_run import run_bundle

    folder, start = Path(spec["folder"]), time.perf_counter()
    before = _seconds_before(folder, spec)
    (folder / DONE_FILE).unlink(missing_ok=True)
    write_record(folder / _STARTED_FILE, {"identity": spec["identity"], "seconds": before})
    run_bundle(spec["files"], {**spec["settings"], "output_dir": str(folder)})
    encoder = folder / ENCODER_FILE
    if not encoder.is_file():
        raise StudyError(f"{folder} has no {ENCODER_FILE} after its run: name a pretraining bundle.")
    seconds = before + time.perf_counter() - start
    write_record(folder / DONE_FILE, {"format": 1, "identity": spec["identity"], "seconds": seconds})
    return {"encoder": str(encoder), "seconds": seconds}


def _seconds_before(folder: Path, spec: dict[str, Any]) -> float:
    """Clear the folder of another run; of an interrupted one of the same kind, tell how long its checkpoints took."""
    try:
        started = json.loads((folder / _STARTED_FILE).read_text(encoding="utf-8"))
        if not changed_parts(started["identity"], spec["identity"], spec["any_code"]):
            files = list((folder / "checkpoints").glob("*"))
            newest = max((file.stat().st_mtime for file in files), default=0.0)
            spent = max(0.0, newest - (folder / _STARTED_FILE).stat().st_mtime)
            return float(started["seconds"]) + spent
    except (OSError, ValueError, KeyError, TypeError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return 0.0
