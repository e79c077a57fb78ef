"""A folder of scans or frames as a slice store that lives as long as it is read: inference takes either."""

from __future__ import annotations

import atexit
import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.data.redaction import private_folder
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.data.store_format import HEADER_FILE
from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

KEPT, DUPLICATE, REFUSED, IGNORED = "kept", "duplicate", "refused", "ignored"


@dataclass(frozen=True)
class FileOutcome:
    """What an ingest made of one file.

    Args:
        path: the file, in clear.
        file: its path below the folder.
        status: "kept", "duplicate", "refused" or "ignored" (no image at all).
        code: short name of the reason, "" where there is nothing to say.
        reason: the sentence.
        series: key of the series in the store that it is part of, "" if none.
        frames: of a video, how many candidates were looked at and taken or dropped as near duplicates.
    """

    path: str
    file: str
    status: str
    code: str = ""
    reason: str = ""
    series: str = ""
    frames: int = 0


@dataclass(frozen=True)
class StoredImages:
    """Images to go through an encoder.

    Args:
        store: where they are.
        folder: the folder (or file) that the user gave and that was put into the store; None where he gave a store.
    """

    store: SliceStore
    folder: Path | None = None

    def outcomes(self) -> Iterator[FileOutcome]:
        """What became of each file below the folder, in no certain order; nothing where a store was given."""
        return iter(()) if self.folder is None else file_outcomes(self.store.path, self.folder)


def stored_images(
    path: str | Path, pixels: str, temporary: str | Path, refused: str | Path, workers: int = 1, **options: Any
) -> StoredImages:
    """Open a slice store, or put a folder into a temporary one with the code of ``ssl-transfer ingest``.

    Geometry, HU and orientation are therefore those of a store, whichever of the two the user gives. The temporary
    store needs as much disk as a real one and is removed when the process ends; what a killed process left is removed
    by the next one.

    Args:
        path: a slice store, or a folder (or a file) of DICOM and NIfTI, or of photographs and videos.
        pixels: "hu" or "rgb", what the store must hold.
        temporary: folder for the temporary store.
        refused: table of the files that are not used, written here only if none is; see ``write_refused``.
        workers: processes that read the folder.
        options: of ``ingest_ct`` or ``ingest_frames``; None leaves the ingest's own value.

    Raises:
        DataError: neither a store nor a folder; nothing in it could be read; it holds the other kind of pixels; or
            options are given for a store, which was made with its own.
    """
    path, temporary = Path(path), Path(temporary).absolute()
    given = {name: value for name, value in options.items() if value is not None}
    if (path / HEADER_FILE).exists():
        if given:
            raise DataError(f"{path} is a slice store, which was made with its own {', '.join(given)}: leave that out")
        store = SliceStore(path)
        if store.pixels != pixels:
            raise DataError(f"{path} holds {store.pixels} pixels, not {pixels}: use the bundle for that kind of images")
        if not len(store):
            raise DataError(f"{path} holds no slices: ingest scans into it first")
        return StoredImages(store)
    remove_store(temporary)
    atexit.register(remove_store, temporary)
    try:
        _ingest(path, pixels, temporary, workers, given)
    except DataError as error:
        counts = write_refused(refused, file_outcomes(temporary, path.absolute()))
        if not counts or counts[KEPT]:
            raise
        raise DataError(f"nothing in {path} could be read, see {refused} for the reason of each file") from error
    return StoredImages(SliceStore(temporary), path.absolute())


def _ingest(path: Path, pixels: str, store: Path, workers: int, options: dict[str, Any]) -> None:
    if pixels == "rgb":
        from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames

        # Every photograph gets its row, however much it resembles the one before it.
        ingest_frames(path, store, workers=workers, duplicate_threshold=None, **options)
    else:
        from monai_ssl_transfer.data.ct.ingest import ingest_ct

        ingest_ct(path, store, workers=workers, **options)


def remove_store(store: Path) -> None:
    """Delete a temporary store with its salt and its clear names."""
    for folder in (store, private_folder(store)):
        shutil.rmtree(folder, ignore_errors=True)


def file_outcomes(store: Path, folder: Path) -> Iterator[FileOutcome]:
    """Join what the ingest wrote into the store with the clear names beside it.

    Args:
        store: made by ``ingest_ct`` or ``ingest_frames``; its private folder must be there.
        folder: that was ingested; paths are given relative to it.
    """
    root = folder if folder.is_dir() else folder.parent
    entries = _entries(store)
    for identity, path in _clear_names(store):
        entry = entries.get(identity)
        if entry is not None:
            yield FileOutcome(
                path,
                Path(path).relative_to(root).as_posix() if Path(path) != root else ".",
                entry["status"],
                entry.get("code", ""),
                entry.get("reason", ""),
                entry.get("series", ""),
                int(entry.get("frames", 0)) + int(entry.get("near_duplicates", 0)),
            )


def write_refused(file: str | Path, outcomes: Iterable[FileOutcome]) -> Counter[str]:
    """Write every file that was not used, or only in part, with its reason; without any such file no table is left.

    Args:
        file: CSV table of file, status, code and reason.
        outcomes: of all files.

    Returns:
        Number of files per status.
    """
    counts: Counter[str] = Counter()
    rows = []
    for outcome in outcomes:
        counts[outcome.status] += 1
        if outcome.status != KEPT or outcome.code:
            rows.append((outcome.file, outcome.status, outcome.code, outcome.reason))
    if not rows:
        Path(file).unlink(missing_ok=True)
        return counts
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "status", "code", "reason"), *sorted(rows)])
    write_durably(Path(file), lambda stream: stream.write(text.getvalue().encode("utf-8", "surrogateescape")))
    return counts


def _entries(store: Path) -> dict[str, dict[str, Any]]:
    journal, report = store / "ingest_files.jsonl", store / "ingest_report.json"
    if journal.exists():
        with journal.open(encoding="utf-8") as lines:
            return {entry["id"]: entry for entry in map(json.loads, lines)}
    if not report.exists():
        return {}
    return {entry["id"]: entry for entry in json.loads(report.read_text(encoding="utf-8"))["files"]}


def _clear_names(store: Path) -> Iterator[tuple[str, str]]:
    file = private_folder(store) / "files.jsonl"
    if not file.exists():
        return
    with file.open(encoding="utf-8") as lines:
        for entry in map(json.loads, lines):
            yield entry["id"], entry["path"]
