"""The SHA-256 of a file, which may be as large as weights or a scan."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 1 << 22


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits; block by block, as hashlib.file_digest needs Python 3.11.

    Args:
        path: the file.

    Returns:
        64 digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
