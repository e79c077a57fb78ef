"""The account of an ingest: what became of every file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

REPORT_NAME = "ingest_report.json"
KEPT, DUPLICATE, REFUSED, IGNORED = "kept", "duplicate", "refused", "ignored"


@dataclass(frozen=True)
class FileEntry:
    """What became of one file.

    Args:
        id: salted hash of the file's absolute path.
        file: path below the scanned folder, redacted.
        status: "kept", "duplicate" (its pixels are in the store already), "refused" or "ignored" (no scan at all).
        code: short name of the reason, "" for kept ones.
        reason: the sentence.
        series: key of the series that it is part of, "" if none.
    """

    id: str
    file: str
    status: str
    code: str = ""
    reason: str = ""
    series: str = ""


@dataclass(frozen=True)
class SeriesNote:
    """A series of the store as the report shows it."""

    series: str
    kind: str
    slices: int
    body_part: str
    slice_spacing: float
    uneven: bool
    notes: tuple[str, ...] = ()


@dataclass
class IngestReport:
    """Every file that the ingests into a store met, and every series that came of them.

    Args:
        store: the store's folder.
        files: per ``FileEntry.id``.
        series: per series key.
        added_series: how many series the last run added.
        added_slices: how many slices the last run added.
    """

    store: Path
    files: dict[str, FileEntry] = field(default_factory=dict)
    series: dict[str, SeriesNote] = field(default_factory=dict)
    added_series: int = 0
    added_slices: int = 0

    def counts(self) -> dict[str, int]:
        """Number of files per status."""
        found = Counter(entry.status for entry in self.files.values())
        return {status: found.get(status, 0) for status in (KEPT, DUPLICATE, REFUSED, IGNORED)}

    def reasons(self) -> dict[str, int]:
        """Number of files per reason, most frequent first; kept files are left out."""
        return dict(
            Counter(f"{entry.status}: {entry.code}" for entry in self.files.values() if entry.code).most_common()
        )

    def summary(self) -> str:
        """A few lines for the terminal."""
        counts, slices = self.counts(), sum(note.slices for note in self.series.values())
        lines = [
            f"{self.store}: {len(self.series)} series, {slices} slices "
            f"({self.added_series} series, {self.added_slices} slices new)",
            f"{sum(counts.values())} files met: "
            + ", ".join(f"{number} {status}" for status, number in counts.items()),
        ]
        reasons = self.reasons()
        width = max((len(str(number)) for number in reasons.values()), default=1)
        lines += [f"  {number:>{width}} {reason}" for reason, number in list(reasons.items())[:20]]
        if len(reasons) > 20:
            lines.append(f"  ... and {len(reasons) - 20} more reasons")
        noted = Counter(note.split(";")[0].split(" of ")[0] for series in self.series.values() for note in series.notes)
        lines += [f"  {number:>{width}} series with a note: {note}" for note, number in noted.most_common(5)]
        return "\n".join([*lines, f"every file: {self.store / REPORT_NAME}"])

    def write(self) -> Path:
        """Write ``ingest_report.json`` into the store, whole or not at all; one line per file."""
        head = {"format": 1, "counts": self.counts(), "reasons": self.reasons()}
        body = json.dumps(head, indent=1)[:-2]
        body += ',\n "series": ' + _lines(asdict(note) for note in self.series.values())
        body += ',\n "files": ' + _lines(_without_blanks(asdict(entry)) for entry in self.files.values()) + "\n}\n"
        file = self.store / REPORT_NAME
        write_durably(file, lambda stream: stream.write(body.encode()))
        return file


def _lines(items: Iterable[Mapping[str, Any]]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(item) for item in items) + "\n ]"


def _without_blanks(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value != ""}


def read_report(store: str | Path) -> IngestReport:
    """Read the report of a store; an empty one if there is none yet.

    Raises:
        DataError: the file is not such a report.
    """
    store = Path(store)
    file = store / REPORT_NAME
    if not file.exists():
        return IngestReport(store)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        files = {entry["id"]: FileEntry(**entry) for entry in content["files"]}
        series = {note["series"]: SeriesNote(**{**note, "notes": tuple(note["notes"])}) for note in content["series"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: is damaged, move it away; the next ingest of the same folders writes it anew"
        ) from error
    return IngestReport(store, files, series)
