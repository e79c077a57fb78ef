"""Runs on disk as tables: one row per run of a folder, or one row per epoch of a run. Imports nothing heavy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError

RECORD_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
# run.json is renewed every minute, but an evaluation or a checkpoint may take longer
SILENT_AFTER = timedelta(minutes=15)

Row = dict[str, Any]


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders that hold a run, in and below these.

    Args:
        folders: where to look; links are not followed.

    Returns:
        Sorted, without duplicates.

    Raises:
        DataError: when a folder is missing or no run is found in any of them.
    """
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; give the --output_dir of a run or a folder above several.")
    found = {place for folder in folders for place in _runs_below(folder)}
    if not found:
        named = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{named} holds no run of pretraining ({RECORD_FILE}); give a folder above an --output_dir.")
    return sorted(found)


def _runs_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if RECORD_FILE in files:
            folders.clear()  # a run holds no other runs
            yield Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]


def run_row(run: Path, name: str, now: datetime | None = None) -> Row:
    """What there is to say about a run in one row.

    Args:
        run: its folder.
        name: what to call it.
        now: to tell a silent run from a running one; default the current time.

    Returns:
        Plain values; None for what is not known (yet).

    Raises:
        DataError: when a file of the run is damaged.
    """
    start = read_record(run)["starts"][-1]
    epochs = read_epochs(run)
    knn = [one["knn_accuracy"] for one in epochs if "knn_accuracy" in one]
    last = epochs[-1] if epochs else {}
    values = start.get("values", {})
    return {
        "run": name,
        "method": values.get("method_name") or start.get("method"),
        "encoder": values.get("encoder_name"),
        "data": _data(start.get("data", {})),
        "images": _images(start.get("data", {})),
        "epoch": start.get("epoch"),
        "epochs": start.get("epochs"),
        "state": _state(start, now or datetime.now(timezone.utc)),
        "reason": start.get("reason"),
        "loss": last.get("loss"),
        "best_knn": max(knn, default=None),
        "last_knn": knn[-1] if knn else None,
        "images_per_second": last.get("images_per_second"),
        "updated": start.get("updated"),
    }


def read_record(run: Path) -> dict[str, Any]:
    """The record that ``engines.records.run_record`` wrote.

    Raises:
        DataError: when it is damaged.
    """
    path = run / RECORD_FILE
    record = _parsed(path, path.read_text(encoding="utf-8", errors="replace"), "look into checkpoints/ for the state")
    starts = record.get("starts")
    if not isinstance(starts, list) or not starts or not all(isinstance(one, dict) for one in starts):
        raise DataError(f"{path} lists no start of a run; move it away, the next start writes a new one.")
    return record


def read_epochs(run: Path) -> list[Row]:
    """The records of a run's epochs; a last line that a kill cut off is left out.

    Raises:
        DataError: when another line is damaged.
    """
    path = run / METRICS_FILE
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    if lines and not text.endswith("\n"):
        lines.pop()
    return [_parsed(path, line, f"line {number} can be removed") for number, line in enumerate(lines, 1)]


def _parsed(path: Path, text: str, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged (no record); {remedy}.")
    return content


def _data(summary: Mapping[str, Any]) -> str | None:
    for unit in ("slices", "frames", "images"):
        if unit in summary:
            return f"{summary[unit]:,} {unit} ({summary.get('modality')})"
    return None


def _images(summary: Mapping[str, Any]) -> int | None:
    return next((int(summary[unit]) for unit in ("slices", "frames", "images") if unit in summary), None)


def _state(start: Mapping[str, Any], now: datetime) -> str:
    state = str(start.get("state"))
    if state == "running" and "updated" in start:
        quiet = now - datetime.fromisoformat(start["updated"])
        return "silent" if quiet > SILENT_AFTER else state
    return state
