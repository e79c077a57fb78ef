"""What a stored frame is known by: a salted hash of its file's content, so that a copy is found under any name."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from monai_ssl_transfer.data.redaction import Pseudonyms
from monai_ssl_transfer.data.refusal import RefusedFile


def content_hash(path: str) -> str:
    """Hash of a file's bytes, read in blocks.

    Raises:
        RefusedFile: it is no regular file, or cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise RefusedFile(path, "not a file", "neither a file nor a folder, so it was not opened")
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        sentence = f"cannot be read ({type(error).__name__}), check its rights"
        raise RefusedFile(path, "unreadable", sentence) from error
    return digest.hexdigest()


def photograph_source(pseudonyms: Pseudonyms, content: str) -> int:
    """Number of a photograph whose file has this `content_hash`."""
    return pseudonyms.number("source", content)


def video_source(pseudonyms: Pseudonyms, content: str, frame: int) -> int:
    """Number of a frame of the video with this `content_hash`; frame 0 of a video that can be read is always taken."""
    return pseudonyms.number("source", f"{content}#{frame}")
