"""Jobs that make data before a study's runs: generated images, and stores that leave the test images out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.study.planning.identity import changed_parts
from monai_ssl_transfer.study.records import read_record, write_record

DONE_FILE = "done.json"
_STARTED_FILE = "started.json"


def make_data(spec: dict[str, Any]) -> dict[str, Any]:
    """Make the data of one step; what was made half is made again, a store goes on.

    Args:
        spec: "folder", "kind", "sources" (folders), "options", "held_out" (task -> settings of its bundle, see
            `held_out_names`), "identity" and "any_code", all as JSON.

    Returns:
        {"folder": ...}.

    Raises:
        StudyError: the options do not suit the generator.
        DataError: the sources cannot be used.
    """
    folder = Path(spec["folder"])
    content = folder / "content"
    started = read_record(folder / _STARTED_FILE) or {}
    if changed_parts(started.get("identity"), spec["identity"], spec["any_code"]):
        shutil.rmtree(folder, ignore_errors=True)
        write_record(folder / _STARTED_FILE, {"identity": spec["identity"]})
    if not spec["kind"].startswith("phantom"):
        leave_out = _held_out_file(spec, folder)
        for source in spec["sources"]:
            _ingest(spec, source, content, leave_out)
    else:
        shutil.rmtree(content, ignore_errors=True)
        _generate(spec, content)
    record = {"format": 1, "identity": spec["identity"], "kind": spec["kind"]}
    write_record(folder / DONE_FILE, record)
    return {"folder": str(content)}


def _generate(spec: dict[str, Any], content: Path) -> None:
    from monai_ssl_transfer.data.phantoms import ct_dataset, endoscopy_dataset, endoscopy_layouts

    generators: dict[str, Any] = {
        "phantom_endoscopy": endoscopy_dataset.write_endoscopy_phantoms,
        "phantom_kvasir_seg": endoscopy_layouts.write_kvasir_seg,
        "phantom_giana": endoscopy_layouts.write_giana,
        "phantom_hyperkvasir": endoscopy_layouts.write_hyperkvasir,
        "phantom_ct": ct_dataset.write_phantom_dataset,
    }
    try:
        generators[spec["kind"]](content, **spec["options"])
    except TypeError as error:
        raise StudyError(f"the options {spec['options']} do not suit {spec['kind']} ({error}): mend them.") from error


def _ingest(spec: dict[str, Any], source: str, content: Path, leave_out: Path | None) -> None:
    try:
        if spec["kind"] == "ct":
            from monai_ssl_transfer.data.ct.ingest import ingest_ct

            ingest_ct(source, content, workers=1, progress=False, **spec["options"])
        else:
            from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames

            ingest_frames(source, content, workers=1, progress=False, leave_out=leave_out, **spec["options"])
    except TypeError as error:
        raise StudyError(f"the options {spec['options']} do not suit ingest ({error}): mend them.") from error


def _held_out_file(spec: dict[str, Any], folder: Path) -> Path | None:
    """One list of all test images of the named tasks; None where nothing is to be left out."""
    if not spec["held_out"]:
        return None
    if spec["kind"] == "ct":
        raise StudyError(f"{folder.name}: leave_out is for frames; give ct the folder of scans that no task tests on.")
    names: set[str] = set()
    ends: set[str] = set()
    for task, bundle in spec["held_out"].items():
        record = held_out_names(folder / "held_out" / task, bundle)
        names.update(record["test"], record.get("left_out", ()))
        ends.update(record.get("held_out_files", ()))
    file = folder / "held_out.json"
    write_record(file, {"test": sorted(names), "left_out": [], "held_out_files": sorted(ends)})
    return file


def held_out_names(folder: Path, bundle: dict[str, Any]) -> dict[str, Any]:
    """Let a task's own bundle divide its data as its trainings will, and read what it keeps for the test.

    Args:
        folder: gets the bundle's split.json and frames.json.
        bundle: "files" of the configuration and "settings".

    Raises:
        StudyError: the bundle records no photographs.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(bundle["files"])
    parser.update({**bundle["settings"], "output_dir": str(folder)})
    parser.get_parsed_content("cases")
    file = folder / "frames.json"
    if not file.is_file():
        raise StudyError(
            f"{folder.name} writes no frames.json, so its test images cannot be left out: remove leave_out."
        )
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
