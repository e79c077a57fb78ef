"""What an ingest of frames has to do: files by kind, groups, and chunks of bounded size that become series."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES
from monai_ssl_transfer.data.endoscopy.video import VIDEO_SUFFIXES
from monai_ssl_transfer.data.file_listing import ARCHIVE_SUFFIXES, SYSTEM_FILES
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.errors import DataError

CHUNK_FRAMES = 256
CHUNK_BYTES = 64 << 20
"""A chunk of a group ends at so many frames or file bytes, whichever comes first, so that memory is bounded."""


@dataclass(frozen=True)
class FrameOptions:
    """How frames are taken.

    Args:
        longest_side: larger frames are made smaller to this many pixels, with their aspect ratio; 0 keeps their sizes.
        every: of a video, frames 0, ``every``, 2 ``every`` ... are taken.
        crop: cut off the black border and the burnt-in text in it.
        duplicate_threshold: a frame is dropped whose hash of 256 bits differs in at most so many of them from the
            frame kept before it in its group; None or a negative number keeps all.
    """

    longest_side: int = 512
    every: int = 25
    crop: bool = False
    duplicate_threshold: int | None = 16

    def __post_init__(self) -> None:
        if self.longest_side < 0 or self.every < 1:
            raise DataError(
                f"longest side {self.longest_side} and every {self.every} do not go: give 0 or more, and 1 or more"
            )

    @property
    def drops_duplicates(self) -> bool:
        """Whether near duplicates are looked for."""
        return self.duplicate_threshold is not None and self.duplicate_threshold >= 0


@dataclass(frozen=True)
class FrameJob:
    """A chunk of one group's image files, or one video.

    Args:
        kind: "frames" or "video", as the store has it.
        name: clear text that is unique for the files as they are now, by group, path, size, time of change and class.
        group: clear text that identifies the patient or procedure.
        files: absolute paths, in order.
        labels: class of each file, -1 = none.
        before: file that comes before the first one in its group, "" if none.
        encode: False to find out only what became of the files (their chunk is in the store already).
    """

    kind: str
    name: str
    group: str
    files: tuple[str, ...]
    labels: tuple[int, ...]
    before: str = ""
    encode: bool = True


def sort_files(paths: Sequence[str]) -> tuple[list[str], list[str], list[tuple[RefusedFile, bool]]]:
    """Divide files by their names.

    Args:
        paths: all files.

    Returns:
        Image files, videos, and (why not, whether it is no picture at all) of the others.
    """
    frames, videos, others = [], [], []
    for path in paths:
        name = Path(path).name.lower()
        if name in SYSTEM_FILES or name.startswith("._"):
            others.append((RefusedFile(path, "system file", "a file of the operating system, not a picture"), True))
        elif name.endswith(FRAME_SUFFIXES):
            frames.append(path)
        elif name.endswith(VIDEO_SUFFIXES):
            videos.append(path)
        elif name.endswith(ARCHIVE_SUFFIXES):
            sentence = "an archive, unpack it and ingest the folder again"
            others.append((RefusedFile(path, "archive", sentence), False))
        else:
            others.append((RefusedFile(path, "not a picture", "named neither as an image nor as a video"), True))
    return frames, videos, others


class Grouping:
    """Which group an image file belongs to: its folder, or what a pattern finds in its path.

    Args:
        source: folder that is ingested.
        pattern: regular expression; its first capture group, searched in the path below ``source``, names the group.

    Raises:
        DataError: the pattern is none, or captures nothing.
    """

    def __init__(self, source: Path, pattern: str | None) -> None:
        self._source = source if source.is_dir() else source.parent
        try:
            self._pattern = re.compile(pattern) if pattern is not None else None
        except re.error as error:
            raise DataError(f"group pattern {pattern!r} is no regular expression ({error}): mend it") from error
        if self._pattern is not None and not self._pattern.groups:
            raise DataError(f"group pattern {pattern!r} captures nothing: put the part that names the group in (...)")

    def relative(self, path: str) -> str:
        """Path below the source."""
        return Path(path).relative_to(self._source).as_posix()

    def __call__(self, path: str) -> str | None:
        """Clear text that names the group; None where the pattern does not fit."""
        if self._pattern is None:
            return f"folder {Path(path).parent}"
        found = self._pattern.search(self.relative(path))
        return None if found is None or found[1] is None else f"group {found[1]}"


def plan_jobs(
    frames: Sequence[str],
    videos: Sequence[str],
    grouping: Grouping,
    labels: Mapping[str, int],
    refusals: list[RefusedFile],
) -> Iterator[FrameJob]:
    """Jobs in a fixed order, made as they are asked for.

    Args:
        frames: image files.
        videos: videos, each a group of its own.
        grouping: of the image files.
        labels: class by absolute path.
        refusals: gets the files that have no group.
    """
    groups: dict[str, list[str]] = {}
    for path in frames:
        group = grouping(path)
        if group is None:
            sentence = "its path does not fit the group pattern, so its patient is unknown; mend the pattern"
            refusals.append(RefusedFile(path, "no group", sentence))
        else:
            groups.setdefault(group, []).append(path)
    return chain(
        chain.from_iterable(_chunks(group, groups[group], grouping, labels) for group in sorted(groups)),
        (_job("video", f"video {path}", [(path, *_state(path))], "", grouping, labels) for path in sorted(videos)),
    )


def _chunks(group: str, paths: list[str], grouping: Grouping, labels: Mapping[str, int]) -> Iterator[FrameJob]:
    chunk: list[tuple[str, int, int]] = []
    before, size = "", 0
    for path in sorted(paths, key=lambda path: natural_key(grouping.relative(path))):
        state = _state(path)
        if chunk and (len(chunk) == CHUNK_FRAMES or size + state[0] > CHUNK_BYTES):
            yield _job("frames", group, chunk, before, grouping, labels)
            before, chunk, size = chunk[-1][0], [], 0
        chunk.append((path, *state))
        size += state[0]
    yield _job("frames", group, chunk, before, grouping, labels)


def _state(path: str) -> tuple[int, int]:
    """Size and time of change; zeros for what cannot be asked (reading it will say why)."""
    try:
        state = Path(path).stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _job(
    kind: str,
    group: str,
    files: Sequence[tuple[str, int, int]],
    before: str,
    grouping: Grouping,
    labels: Mapping[str, int],
) -> FrameJob:
    paths = tuple(path for path, _, _ in files)
    classes = tuple(labels.get(path, -1) for path in paths)
    lines = [f"{grouping.relative(path)} {size} {time}" for path, size, time in files]
    # a class is part of the name, so that a file whose class was corrected is read again and the correction noticed
    lines = [line if label < 0 else f"{line} class {label}" for line, label in zip(lines, classes, strict=True)]
    return FrameJob(kind, "\n".join([kind, group, *lines]), group, paths, classes, before)
