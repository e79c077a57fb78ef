"""The account of a frame ingest: one line per file, written as the files are done; numbers in front of it.

Lines are appended and never kept in memory, for there may be millions of them. A file that is met again gets a new
line, which holds; `FileJournal.tidy` removes the older one.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from monai_ssl_transfer.data.endoscopy.ingest_plan import FrameOptions
from monai_ssl_transfer.data.redaction import PathRedactor, Pseudonyms, private_folder
from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

REPORT_NAME, FILES_NAME = "ingest_report.json", "ingest_files.jsonl"
KEPT, DUPLICATE, REFUSED, IGNORED = "kept", "duplicate", "refused", "ignored"


@dataclass
class FrameIngestReport:
    """What a store of frames holds and what became of all files that the ingests into it met.

    Args:
        store: its folder.
        options: of the last ingest.
        frames: in the store.
        groups: in the store.
        added_frames: by the last ingest.
        near_duplicates: frames that were dropped as such, of image files and of videos.
        labelled: frames in the store that have a class.
        bytes_per_frame: of the store's files, 0 without frames.
        counts: files per status.
        reasons: files per status and code, kept ones without a remark left out.
    """

    store: Path
    options: FrameOptions
    frames: int = 0
    groups: int = 0
    added_frames: int = 0
    near_duplicates: int = 0
    labelled: int = 0
    bytes_per_frame: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [
            f"{self.store}: {self.frames} frames of {self.groups} groups ({self.added_frames} frames new), "
            f"{self.labelled} with a class, {self.bytes_per_frame} bytes a frame",
            f"{sum(self.counts.values())} files met: "
            + ", ".join(f"{number} {status}" for status, number in self.counts.items()),
            self._about_duplicates(),
        ]
        width = max((len(str(number)) for number in self.reasons.values()), default=1)
        lines += [f"  {number:>{width}} {reason}" for reason, number in self.reasons.items()]
        return "\n".join([*lines, f"every file: {self.store / FILES_NAME}"])

    def _about_duplicates(self) -> str:
        if not self.options.drops_duplicates:
            return "near duplicates were not looked for"
        threshold = self.options.duplicate_threshold
        return f"{self.near_duplicates} near duplicates dropped (at most {threshold} of 256 bits of the hash differ)"

    def write(self) -> Path:
        """Write ``ingest_report.json`` into the store, whole or not at all."""
        content = {"format": 1, **asdict(self)}
        content.pop("store")
        file = self.store / REPORT_NAME
        write_durably(file, lambda stream: stream.write((json.dumps(content, indent=1) + "\n").encode()))
        return file


class FileJournal:
    """Appends what became of each file: redacted to the store, with its clear path to the private folder beside it.

    Args:
        source: folder that is ingested.
        store: the store's folder.
        pseudonyms: of the store.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, source: Path, store: Path, pseudonyms: Pseudonyms) -> None:
        self.pseudonyms = pseudonyms
        self._source = source if source.is_dir() else source.parent
        self._redactor = PathRedactor(pseudonyms, ())
        self._public, self._private = store / FILES_NAME, private_folder(store) / "files.jsonl"
        self._known: set[int] = set()
        self._repeated = False
        for file in (self._public, self._private):
            _end_last_line(file)
        self._known.update(int(line["id"], 16) for line in self.lines())
        self._files = [file.open("a", encoding="utf-8") for file in (self._public, self._private)]
        self._private.chmod(0o600)

    def __contains__(self, path: str) -> bool:
        return int(self._id(path), 16) in self._known

    def _id(self, path: str) -> str:
        return self.pseudonyms.hexadecimal("file", path, 16)

    def note(self, path: str, status: str, code: str = "", reason: str = "", **more: Any) -> None:
        """Write a line: status, code to count by, sentence, and what else is to be said."""
        identity = self._id(path)
        number = int(identity, 16)
        self._repeated |= number in self._known
        self._known.add(number)
        relative = Path(path).relative_to(self._source).as_posix()
        line = {"id": identity, "file": self._redactor.redact(relative), "status": status, "code": code}
        line |= {"reason": reason, **more}
        for file, content in zip(self._files, (line, {"id": identity, "path": path}), strict=True):
            file.write(json.dumps({key: value for key, value in content.items() if value}) + "\n")

    def flush(self) -> None:
        """Hand the lines to the operating system, which keeps them if this process is killed."""
        for file in self._files:
            file.flush()

    def lines(self) -> Iterator[dict[str, Any]]:
        """All lines of the store's file, the older ones of a file too."""
        yield from _lines(self._public)

    def tidy(self) -> None:
        """Keep the last line of each file."""
        self.flush()
        if not self._repeated:
            return
        for number, file in enumerate((self._public, self._private)):
            last = {int(line["id"], 16): place for place, line in enumerate(_lines(file))}

            def kept(stream: Any, file: Path = file, last: dict[int, int] = last) -> None:
                for place, line in enumerate(_lines(file)):
                    if last[int(line["id"], 16)] == place:
                        stream.write((json.dumps(line) + "\n").encode())

            self._files[number].close()
            write_durably(file, kept, mode=0o600 if file == self._private else 0o666)
            self._files[number] = file.open("a", encoding="utf-8")

    def count(self) -> tuple[dict[str, int], dict[str, int], int]:
        """Files per status, files per status and code (most frequent first), and near duplicates, of a tidy journal."""
        statuses: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        near = 0
        for line in self.lines():
            statuses[line["status"]] += 1
            near += int(line.get("near_duplicates", 0))
            if line.get("code"):
                reasons[f"{line['status']}: {line['code']}"] += 1
        return (
            {status: statuses[status] for status in (KEPT, DUPLICATE, REFUSED, IGNORED)},
            dict(reasons.most_common()),
            near,
        )

    def __enter__(self) -> FileJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()


def keep_options(store: Path, options: FrameOptions, frames: int) -> None:
    """Note how the frames of a store are taken before the first one is, and refuse to mix them with others later.

    Args:
        store: its folder; its writer must be open, so that no other process writes the same.
        options: of this ingest.
        frames: that the store holds; without any it takes new options.

    Raises:
        DataError: the ingests before had other options (names them), or their report is damaged.
    """
    file = store / REPORT_NAME
    if not frames or not file.exists():
        if frames:
            logger.warning("%s is missing: the frames in the store are taken to be as this ingest makes them", file)
        FrameIngestReport(store, options, frames=frames).write()
        return
    before = _options_of(file)
    for name in ("longest_side", "crop", "every", "duplicate_threshold"):
        held, given = getattr(before, name), getattr(options, name)
        if name == "duplicate_threshold" and not (before.drops_duplicates or options.drops_duplicates):
            continue  # None and every negative number keep all
        if held != given:
            raise DataError(
                f"{store} holds frames of {name} {held}, not {given}: give the same options, or a new store"
            )


def _options_of(report: Path) -> FrameOptions:
    try:
        return FrameOptions(**json.loads(report.read_text(encoding="utf-8"))["options"])
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(
            f"{report} is damaged ({error!r}), so it is not known how the frames of this store were taken: restore it "
            "or ingest into a new store"
        ) from error


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{file}: line {number} is damaged, move the file away; the next ingest writes it anew"
                ) from error


def _end_last_line(file: Path) -> None:
    """Cut off a line that a killed process left half written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or not file.stat().st_size:
        return
    with file.open("rb+") as stream:
        size = stream.seek(0, 2)
        start = max(size - (1 << 16), 0)
        stream.seek(start)
        stream.truncate(start + stream.read().rfind(b"\n") + 1)
