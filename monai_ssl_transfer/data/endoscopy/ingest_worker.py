"""What the worker processes of a frame ingest do: read, crop, compare and compress a chunk of files or a video."""

from __future__ import annotations

import hashlib
import pickle
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ssl_transfer.data.endoscopy.borders import field_of_view
from monai_ssl_transfer.data.endoscopy.frames import read_frame
from monai_ssl_transfer.data.endoscopy.ingest_plan import CHUNK_BYTES, CHUNK_FRAMES, FrameJob, FrameOptions
from monai_ssl_transfer.data.endoscopy.ingest_sources import content_hash, photograph_source, video_source
from monai_ssl_transfer.data.endoscopy.near_duplicates import difference_hash, hamming
from monai_ssl_transfer.data.endoscopy.video import DamagedVideoError, sample_video
from monai_ssl_transfer.data.redaction import Pseudonyms
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.data.store_frames import EncodedSlice
from monai_ssl_transfer.data.store_rgb import encode_frame, keeps_its_bytes
from monai_ssl_transfer.errors import DataError

# A mask has nothing but black and white: this share of its pixels lies within so many levels of 0 or 255.
_MASK_SHARE, _MASK_LEVELS = 0.98, 24


@dataclass(frozen=True)
class FileResult:
    """What was found in one file.

    Args:
        path: the file.
        refusal: why it is left out; None if it was used.
        sources: salted numbers of its frames that were used.
        near_duplicates: how many of its frames were dropped as such.
        note: what is to be said about it though it was used.
    """

    path: str
    refusal: RefusedFile | None = None
    sources: tuple[int, ...] = ()
    near_duplicates: int = 0
    note: str = ""


@dataclass
class JobResult:
    """Chunks for the store, and what became of the files.

    Args:
        slices: of a chunk of image files.
        segments: of a video: files that hold a chunk each (they are kept on the disk, not in memory).
        files: one per file of the job.
    """

    slices: list[EncodedSlice] = field(default_factory=list)
    segments: list[Path] = field(default_factory=list)
    files: list[FileResult] = field(default_factory=list)


class _Last:
    """The frame kept last, to compare the next one with."""

    def __init__(self, options: FrameOptions) -> None:
        self._threshold = options.duplicate_threshold if options.drops_duplicates else None
        self._hash: int | None = None

    def repeats(self, frame: np.ndarray) -> bool:
        """Whether a frame shows the same; if not, it becomes the one to compare with."""
        if self._threshold is None:
            return False
        found = difference_hash(frame)
        if self._hash is not None and hamming(found, self._hash) <= self._threshold:
            return True
        self._hash = found
        return False


def read_job(job: FrameJob, options: FrameOptions, salt: bytes, spool: Path) -> JobResult:
    """Read a chunk of image files or a video.

    Args:
        job: what to read.
        options: how frames are taken.
        salt: of the store, for the hashes that stand in it.
        spool: folder for the segments of videos.
    """
    if job.kind == "video":
        return _read_video(job, options, Pseudonyms(salt), spool)
    result, last, pseudonyms = JobResult(), _Last(options), Pseudonyms(salt)
    if job.before and options.drops_duplicates:
        _see_before(job.before, options, last)
    for path, label in zip(job.files, job.labels, strict=True):
        try:
            found, encoded = _read_file(path, label, len(result.slices), options, last, pseudonyms, job.encode)
        except RefusedFile as refusal:
            result.files.append(FileResult(path, refusal, near_duplicates=int(refusal.code == "near duplicate")))
            continue
        result.files.append(found)
        result.slices += encoded
    return result


def _see_before(path: str, options: FrameOptions, last: _Last) -> None:
    """Compare the first frame of a chunk with the file before it, whatever became of that."""
    try:
        last.repeats(_cropped(read_frame(path), options))
    except DataError:
        return  # that file is accounted for where it belongs


def _read_file(
    path: str, label: int, place: int, options: FrameOptions, last: _Last, pseudonyms: Pseudonyms, encode: bool
) -> tuple[FileResult, list[EncodedSlice]]:
    data = _bytes_of(path)
    try:
        frame = read_frame(path)
    except DataError as error:
        raise _refusal(path, error) from error
    if reason := _no_photograph(frame):
        raise RefusedFile(path, *reason)
    frame = _cropped(frame, options)
    if last.repeats(frame):
        raise RefusedFile(path, "near duplicate", "shows the same as the frame kept before it in its group")
    source = photograph_source(pseudonyms, hashlib.blake2b(data, digest_size=16).hexdigest())
    found = FileResult(path, sources=(source,))
    if not encode:
        return found, []
    frame = smaller(frame, options.longest_side)
    jpeg = data if keeps_its_bytes(data, frame) else None
    try:
        return found, [encode_frame(frame, jpeg=jpeg, position=place, label=label, source=source)]
    except DataError as error:
        raise RefusedFile(path, "damaged", str(error)) from error


def _bytes_of(path: str) -> bytes:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise RefusedFile(path, "not a file", "neither a file nor a folder, so it was not opened")
        data = Path(path).read_bytes()
    except OSError as error:
        sentence = f"cannot be read ({type(error).__name__}), check its rights"
        raise RefusedFile(path, "unreadable", sentence) from error
    if not data:
        raise RefusedFile(path, "empty file", "an empty file, copy it again")
    return data


def _refusal(path: str, error: DataError) -> RefusedFile:
    """The reader's sentence without the path, and a code to count by."""
    sentence = str(error).replace(path, "it").removeprefix("it ")
    for code, words in (
        ("truncated", ("truncated", "end mark")),
        ("not an image", ("no picture in a format", "holds no video")),
        ("several pictures", (" pictures: save each",)),
    ):
        if any(word in sentence.lower() for word in words):
            return RefusedFile(path, code, sentence)
    return RefusedFile(path, "damaged", sentence)


def _no_photograph(frame: np.ndarray) -> tuple[str, str] | None:
    """Code and sentence for what is a picture but no photograph."""
    frame = frame[:: frame.shape[0] // 256 + 1, :: frame.shape[1] // 256 + 1]  # enough of it to tell
    grey = frame[..., 1]
    if int(grey.max()) - int(grey.min()) <= 8 and np.ptp(frame.reshape(-1, 3), axis=0).max() <= 8:
        return "blank", "of one colour all over, nothing can be learnt from it"
    if np.abs(frame[..., 0].astype(np.int16) - frame[..., 2]).max() > _MASK_LEVELS:
        return None
    extreme = np.mean((grey <= _MASK_LEVELS) | (grey >= 255 - _MASK_LEVELS))
    if extreme >= _MASK_SHARE and int(grey.max()) >= 255 - _MASK_LEVELS:
        return "label, not an image", "black and white only, so it is a mask and no photograph"
    return None


def _cropped(frame: np.ndarray, options: FrameOptions) -> np.ndarray:
    if not options.crop:
        return frame
    top, bottom, left, right = field_of_view(frame)
    return frame[top:bottom, left:right]


def smaller(frame: np.ndarray, longest_side: int) -> np.ndarray:
    """Bring a frame to at most this longest side, with its aspect ratio.

    Args:
        frame: (rows, columns, 3) uint8.
        longest_side: in pixels; 0 changes nothing.
    """
    rows, columns = frame.shape[:2]
    factor = longest_side / max(rows, columns)
    if not longest_side or factor >= 1:
        return np.ascontiguousarray(frame)
    size = (max(round(columns * factor), 1), max(round(rows * factor), 1))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _read_video(job: FrameJob, options: FrameOptions, pseudonyms: Pseudonyms, spool: Path) -> JobResult:
    path, result, note = job.files[0], JobResult(), ""
    taken: list[int] = []
    repeated: list[int] = []
    frames = _video_frames(job, options, pseudonyms, taken, repeated)
    error: DataError | None = None
    while error is None:
        chunk, error = _segment(frames)
        if chunk:
            result.segments.append(_spooled(chunk, spool, pseudonyms.hexadecimal("spool", job.name)))
        elif error is None:
            break
    if isinstance(error, DamagedVideoError) and taken:
        note = f"damaged ({error.reason}): {error.frames} frames could be read, what was sampled of them is kept"
    elif error is not None:
        refusal = error if isinstance(error, RefusedFile) else _refusal(path, error)
        result.files = [FileResult(path, refusal)]
        return result
    result.files = [FileResult(path, None, tuple(taken), len(repeated), note)]
    return result


def _segment(frames: Iterator[EncodedSlice]) -> tuple[list[EncodedSlice], DataError | None]:
    """The next frames that make one series, and the error that ended them."""
    chunk: list[EncodedSlice] = []
    size = 0
    try:
        for encoded in frames:
            chunk.append(encoded)
            size += len(encoded.image)
            if len(chunk) == CHUNK_FRAMES or size >= CHUNK_BYTES:
                break
    except DataError as error:
        return chunk, error
    return chunk, None


def _video_frames(
    job: FrameJob, options: FrameOptions, pseudonyms: Pseudonyms, taken: list[int], repeated: list[int]
) -> Iterator[EncodedSlice]:
    """Frames as they go into the store; ``taken`` gets their sources, ``repeated`` the numbers of near duplicates."""
    path, last = job.files[0], _Last(options)
    content = content_hash(path)
    for sample in sample_video(path, options.every):
        frame = _cropped(sample.pixels, options)
        if last.repeats(frame):
            repeated.append(sample.number)
            continue
        source = video_source(pseudonyms, content, sample.number)
        taken.append(source)
        frame = smaller(frame, options.longest_side)
        yield encode_frame(frame, position=sample.seconds, label=job.labels[0], source=source)


def _spooled(chunk: list[EncodedSlice], spool: Path, name: str) -> Path:
    """Put a chunk on the disk until its turn comes."""
    file = spool / f"{name}-{chunk[0].source:020d}"
    try:
        file.write_bytes(pickle.dumps(chunk, protocol=5))
    except OSError as error:
        raise SpoolError(
            f"{spool} cannot take the frames of a video ({error.strerror or error}): free space or mend access and "
            "run the same command again"
        ) from error
    return file


class SpoolError(DataError):
    """The disk refuses; this ends the ingest."""


def take_spooled(file: Path) -> list[EncodedSlice]:
    """Read a chunk back and remove its file."""
    chunk: list[EncodedSlice] = pickle.loads(file.read_bytes())  # our own, from a folder that only we can read
    file.unlink()
    return chunk
