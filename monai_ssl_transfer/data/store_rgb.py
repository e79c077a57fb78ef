"""The slice store's RGB frames: a JPEG file per frame, without anything in it that is not pixels.

Frames of endoscopes come as JPEG or as compressed video; stored without loss they would take ten times the bytes and no
detail would be won. A JPEG file that needs no change is kept as it is, so that nothing is compressed twice; only its
descriptions (EXIF, XMP, comments, previews, whatever follows its end) are cut out, for they may hold names.
"""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
from PIL import Image

from monai_ssl_transfer.data.store_frames import EncodedSlice, checksum
from monai_ssl_transfer.errors import DataError

JPEG_QUALITY = 95
_LONGEST_SIDE = (1 << 16) - 1
_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_JFIF, _ADOBE, _FIRST_APPLICATION, _LAST_APPLICATION, _COMMENT = 0xE0, 0xEE, 0xE0, 0xEF, 0xFE
# A marker that ends coded data: neither a stuffed zero nor one of the restarts.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def encode_frame(
    frame: np.ndarray, *, jpeg: bytes | None = None, position: float = 0.0, label: int = -1, source: int = 0
) -> EncodedSlice:
    """Compress one RGB frame.

    Args:
        frame: (rows, columns, 3) uint8, upright.
        jpeg: JPEG file that decodes to just this frame (`keeps_its_bytes`), whose coded pixels are taken over as they
            are; without it the frame is compressed with quality 95 and full colour resolution (4:4:4).
        position: place of the frame in its group; seconds in a video.
        label: class of the frame, -1 = none.
        source: salted 64-bit hash of where the frame came from.

    Raises:
        DataError: If the array has another type or shape, or the JPEG file is damaged.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not _size_fits(frame):
        raise DataError(
            f"a frame must be (rows, columns, 3) uint8 in RGB, not {frame.dtype} {frame.shape}: convert it first"
        )
    data = compressed(frame) if jpeg is None else pixels_alone(jpeg)
    data += bytes(-len(data) % 8)  # the checksum sums whole words; a decoder stops at the end mark
    return EncodedSlice(
        image=data,
        image_crc=checksum(data),
        rows=frame.shape[0],
        columns=frame.shape[1],
        position=position,
        row_spacing=0.0,
        column_spacing=0.0,
        body_part=255,
        label=label,
        source=source,
        pixels="rgb",
    )


def _size_fits(frame: np.ndarray) -> bool:
    return all(0 < side <= _LONGEST_SIDE for side in frame.shape[:2])


def compressed(frame: np.ndarray) -> bytes:
    """JPEG file of an RGB frame."""
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    return stream.getvalue()


def decode_frame(frame: bytes | memoryview, rows: int, columns: int) -> np.ndarray:
    """(rows, columns, 3) uint8 RGB of a stored frame.

    Raises:
        ValueError: If the bytes are no JPEG file of that size.
    """
    decoded = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None or decoded.shape[:2] != (rows, columns):
        raise ValueError("not a JPEG file of the recorded size")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)


def keeps_its_bytes(data: bytes, frame: np.ndarray) -> bool:
    """Whether a file can be stored as it is: a JPEG file that decodes to just the frame, grey or RGB, not turned.

    Args:
        data: the whole file.
        frame: (rows, columns, 3) uint8, what shall be stored.
    """
    if not data.startswith(_START):
        return False
    with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
        if image.mode not in ("RGB", "L") or image.size != (frame.shape[1], frame.shape[0]):
            return False
        return image.getexif().get(0x0112, 1) in (0, 1)


def pixels_alone(jpeg: bytes) -> bytes:
    """A JPEG file without EXIF, XMP, colour profile, comments, previews and whatever follows its end.

    Of the application segments only those stay that say how the colours are coded, and of them only the part that says
    it: JFIF without its thumbnail, and Adobe (ISO/IEC 10918-1, annex B; ISO/IEC 10918-5; 10918-6).

    Raises:
        DataError: If its segments are damaged.
    """
    kept, at = [_START], 2
    while True:
        found = _MARKER.search(jpeg, at)
        if found is None or found.start() != at:
            raise DataError("a JPEG file with damaged segments cannot be stored: save it anew")
        marker, start = jpeg[found.end() - 1], found.end()
        if marker == _END[1]:
            return b"".join([*kept, _END])
        length = int.from_bytes(jpeg[start : start + 2], "big")
        if length < 2 or start + length > len(jpeg):
            raise DataError("a JPEG file with damaged segments cannot be stored: save it anew")
        at = start + length
        kept.append(_segment(marker, jpeg[start + 2 : at]))
        if marker == _SCAN:
            found = _MARKER.search(jpeg, at)
            if found is None:
                raise DataError("a JPEG file without its end mark cannot be stored: save it anew")
            kept.append(jpeg[at : found.start()])
            at = found.start()


def _segment(marker: int, content: bytes) -> bytes:
    """The segment as it is kept; empty for what may hold texts."""
    if marker == _JFIF and content.startswith(b"JFIF\0"):
        content = content[:12] + b"\0\0"  # no thumbnail
    elif marker == _ADOBE and content.startswith(b"Adobe"):
        content = content[:12]
    elif _FIRST_APPLICATION <= marker <= _LAST_APPLICATION or marker == _COMMENT:
        return b""
    return b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2, "big") + content
