"""Frames of endoscopic videos: every n-th one, upright, with square pixels, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from monai_ssl_transfer.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".wmv", ".webm", ".mts", ".m2ts")


@dataclass(frozen=True)
class SampledFrame:
    """A frame of a video.

    Attributes:
        number: its place in the video, from 0.
        seconds: its time in the video (its number where the file gives no times).
        pixels: (rows, columns, 3) uint8 RGB.
    """

    number: int
    seconds: float
    pixels: np.ndarray


class DamagedVideoError(DataError):
    """A video that cannot be read to its end.

    Args:
        path: the file.
        frames: how many frames could be read.
        reason: what the decoder said.
    """

    def __init__(self, path: Path, frames: int, reason: str) -> None:
        super().__init__(
            f"{path} is damaged ({reason}), {frames} frames could be read: restore the file or convert it with ffmpeg"
        )
        self.frames, self.reason = frames, reason


def sample_video(path: str | Path, every: int, threads: int = 1) -> Iterator[SampledFrame]:
    """Every n-th frame of a video; memory stays that of some frames, however long it is.

    The rotation that the file asks for is carried out, and pixels that are not square are stretched to square ones.

    Args:
        path: any container and codec that FFmpeg decodes.
        every: take frames 0, ``every``, 2 ``every`` ...
        threads: of the decoder.

    Raises:
        DamagedVideoError: at the point where it cannot be read any further; also where it ends before the number of
            frames that its header promises (or, if the header shows a part of them only, before the end of that part).
        DataError: it is no video, or cannot be opened.
    """
    path = Path(path)
    count, seconds = 0, 0.0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video: remove it")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = threads
            stream.codec_context.thread_type = "AUTO" if threads > 1 else "NONE"
            promised, length = stream.frames, (container.duration or 0) / av.time_base
            shown = _edited_length(container, stream)
            for frame in container.decode(stream):
                seconds = float(frame.time) if frame.time is not None else float(count)
                if count % every == 0:
                    yield SampledFrame(count, seconds, _upright(frame, stream))
                count += 1
    except OSError as error:  # PyAV raises these for missing files as well as for broken content
        if count == 0:
            raise DataError(f"{path} cannot be read as a video ({_said(error)}): restore it or remove it") from error
        raise DamagedVideoError(path, count, _said(error)) from error
    except (av.FFmpegError, ValueError) as error:
        if count == 0:
            raise DataError(f"{path} cannot be read as a video ({_said(error)}): restore it or remove it") from error
        raise DamagedVideoError(path, count, _said(error)) from error
    if count and not promised and seconds < 0.95 * length - 1:  # Matroska says how long, not how many; sound may go on
        raise DamagedVideoError(path, count, f"it ends at {seconds:.1f} of {length:.1f} seconds")
    if count < promised and (shown is None or seconds < shown):
        raise DamagedVideoError(path, count, f"its header promises {promised} frames")
    if not count:
        raise DataError(f"{path} is a video without a frame: restore it or remove it")


def _edited_length(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Seconds in which the last frame must begin, for formats whose edit list may show a part of the frames.

    FFmpeg counts all frames of such files, but takes the duration from the edit list (ISO/IEC 14496-12, 8.6.6).
    """
    if "mov" not in container.format.name or not stream.duration or not stream.time_base:
        return None
    return float(stream.duration * stream.time_base) - 1.5 / float(stream.average_rate or 25)


def _said(error: Exception) -> str:
    """What the decoder said, without the path."""
    return str(getattr(error, "strerror", "") or type(error).__name__)


def _upright(frame: av.VideoFrame, stream: av.VideoStream) -> np.ndarray:
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    ratio = stream.sample_aspect_ratio
    if ratio and ratio != 1:
        size = (max(round(pixels.shape[1] * ratio), 1), pixels.shape[0])
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    # FFmpeg gives the angle counter-clockwise, as numpy turns
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
