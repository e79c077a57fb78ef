"""Book-keeping of one ingest: outcomes per file while it runs, the redacted report at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.data.ct.ingest_report import (
    DUPLICATE,
    IGNORED,
    KEPT,
    REFUSED,
    FileEntry,
    IngestReport,
    SeriesNote,
)
from monai_ssl_transfer.data.ct.ingest_worker import FileScan, SeriesResult
from monai_ssl_transfer.data.ct.volume import geometry_notes
from monai_ssl_transfer.data.redaction import PathRedactor, Pseudonyms, write_clear_names
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.data.store import SeriesEntry

_DUPLICATE_CODES = {"duplicate", "copy", "ingested before"}


@dataclass(frozen=True)
class _Outcome:
    status: str
    code: str = ""
    reason: str = ""
    series: str = ""


class Account:
    """Collects what becomes of each file and turns it into the report.

    Args:
        source: folder that is scanned.
        store: the store's folder.
        pseudonyms: of the store.
        report: of the ingests before.
    """

    def __init__(self, source: Path, store: Path, pseudonyms: Pseudonyms, report: IngestReport) -> None:
        self.pseudonyms = pseudonyms
        self._source, self._store, self._report = source, store, report
        self._outcomes: dict[str, _Outcome] = {}
        self._claims: dict[str, set[str]] = {}
        for entry in report.files.values():
            if entry.status == KEPT:
                self._claims.setdefault(entry.series, set()).add(entry.id)

    @property
    def kept_any(self) -> bool:
        """Whether this run met a file whose slices are in the store now."""
        return any(outcome.series for outcome in self._outcomes.values())

    def added(self, slices: int) -> None:
        """Count a series that this run put into the store."""
        self._report.added_series += 1
        self._report.added_slices += slices

    def refuse(self, refusal: RefusedFile, ignored: bool = False) -> None:
        """A file is left out; one that is partly used (a multi-frame file) stays kept, with the reason beside it."""
        status = IGNORED if ignored else DUPLICATE if refusal.code in _DUPLICATE_CODES else REFUSED
        before = self._outcomes.get(refusal.path)
        if before is not None and before.status == KEPT:
            reason = f"some of its frames were left out: {refusal.sentence}"
            self._outcomes[refusal.path] = _Outcome(KEPT, refusal.code, reason, before.series)
        else:
            self._outcomes[refusal.path] = _Outcome(status, refusal.code, refusal.sentence)

    def refuse_all(self, refusals: Iterable[RefusedFile]) -> None:
        """Several files are left out."""
        for refusal in refusals:
            self.refuse(refusal)

    def take(self, result: SeriesResult) -> None:
        """The files of a series that was read and is in the store now."""
        for path, key in result.kept.items():
            self._outcomes.setdefault(path, _Outcome(KEPT, series=key))
        self.refuse_all(result.refused)

    def take_stored(self, paths: Sequence[str], key: str) -> None:
        """Files of a series that was in the store before: these very files, or copies at another place."""
        claims = self._claims.get(key, set())
        moved = bool(claims) and not any(self._id(path) in claims for path in paths)
        for path in paths:
            if moved:
                sentence = "its series was ingested before from another place"
                self._outcomes[path] = _Outcome(DUPLICATE, "ingested before", sentence, key)
            else:
                self._outcomes.setdefault(path, _Outcome(KEPT, series=key))

    def take_late(self, result: SeriesResult) -> None:
        """Files that are sound but came after their series was stored: a stored series does not grow."""
        sentence = (
            "its series was ingested before without this slice, and a stored series cannot grow; "
            "ingest the whole series into a new store"
        )
        self.refuse_all(
            RefusedFile(path, "series grew", sentence) for path in result.kept if path not in self._outcomes
        )
        self.refuse_all(result.refused)

    def finish(
        self, stored: Callable[[str], tuple[SeriesEntry, np.ndarray]], scans: Sequence[FileScan]
    ) -> IngestReport:
        """Write the report into the store and the clear names beside it.

        Args:
            stored: gives the entry and the slice records of a series key.
            scans: of all files, for what their headers say about patients.
        """
        redactor = PathRedactor(self.pseudonyms, frozenset().union(*(scan.identifiers for scan in scans)))
        names = []
        for path, outcome in self._outcomes.items():
            relative = Path(path).relative_to(self._source).as_posix() if path != str(self._source) else Path(path).name
            entry = FileEntry(
                self._id(path), redactor.redact(relative), outcome.status, outcome.code, outcome.reason, outcome.series
            )
            self._report.files[entry.id] = entry
            names.append({"id": entry.id, "file": entry.file, "path": path, "series": entry.series})
        for key in {entry.series for entry in self._report.files.values() if entry.series} - set(self._report.series):
            self._report.series[key] = _note(*stored(key))
        write_clear_names(self._store, names)
        self._report.write()
        return self._report

    def _id(self, path: str) -> str:
        return self.pseudonyms.hexadecimal("file", path)


def _note(entry: SeriesEntry, records: np.ndarray) -> SeriesNote:
    parts = {int(part) for part in records["body_part"]}
    part = BodyPart(parts.pop()).name if len(parts) == 1 else "several"
    positions, shape = records["position"].astype(np.float64), (int(records["rows"][0]), int(records["columns"][0]))
    notes = geometry_notes(np.reshape(entry.affine, (4, 4)), positions, shape)
    return SeriesNote(
        entry.series_key, entry.kind, len(records), part, round(entry.slice_spacing, 4), entry.uneven, notes
    )
