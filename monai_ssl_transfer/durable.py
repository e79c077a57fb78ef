"""Files that are either whole or not there: temporary name, flush, rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_durably(path: Path, write: Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """Replace a file so that a kill, a power cut or a full disk leaves the previous one whole.

    Args:
        path: where the file shall be; its folder is made if it does not exist.
        write: writes the content into the open binary file.
        mode: rights of the file, less those that the process's umask takes.

    Raises:
        OSError: when the disk is full or cannot be written; no trace of the attempt is left.
        RuntimeError: raised by ``torch.save`` for the same reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make a rename durable, where the operating system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
