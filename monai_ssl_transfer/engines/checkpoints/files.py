"""Checkpoint files that are either whole or not there: temporary name, flush, rename; checked before they are used."""

from __future__ import annotations

import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{10})\.ckpt")


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after this many iterations lies."""
    return folder / f"step_{step:010d}.ckpt"


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a folder, newest first."""
    found = [path for path in folder.glob("step_*.ckpt") if _NAME.fullmatch(path.name)]
    return sorted(found, reverse=True)


def write_checkpoint(path: Path, content: dict[str, Any], keep: int = 2) -> None:
    """Write one checkpoint durably, then remove all but the newest ``keep``.

    Raises:
        TrainingError: when the disk is full or cannot be written; the checkpoints before it stay whole.
    """
    try:
        write_durably(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:
        previous = checkpoints(path.parent)
        raise TrainingError(
            f"The checkpoint could not be written into {path.parent} ({_cause(error)}); free space there and start the "
            f"same command again, it goes on from {previous[0].name if previous else 'the start'}."
        ) from error
    for old in checkpoints(path.parent)[keep:]:
        _remove(old)


def read_newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, or ``None`` when the folder has none at all.

    A damaged file is never used: a warning names it and the one before it is read.

    Raises:
        TrainingError: when there are checkpoints and every one of them is damaged.
    """
    found = checkpoints(folder)
    for path in found:
        damage = _damage(path)
        if damage is None:
            return path, torch.load(path, map_location="cpu", weights_only=True)
        logger.warning("%s is damaged (%s) and is not used; going back to the checkpoint before it", path, damage)
    if found:
        raise TrainingError(f"Every checkpoint in {folder} is damaged; remove them or start anew with --resume False.")
    return None


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of runs that were killed while they wrote."""
    for path in folder.glob(".step_*.ckpt.*"):
        _remove(path)


def set_aside(folder: Path) -> Path | None:
    """Rename a folder of checkpoints that shall not be resumed, so that nothing is lost and nothing is mixed up."""
    if not checkpoints(folder):
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.before_{number}")).exists():
        number += 1
    return folder.rename(aside)


def _damage(path: Path) -> str | None:
    """What is wrong with a file, by the checksum of every record in it (torch.load itself checks none)."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        return str(error)
    return None if broken is None else f"checksum of {broken}"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s could not be removed (%s)", path, error)


def _cause(error: BaseException) -> str:
    """The operating system's words, which torch hides behind its own error."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error).splitlines()[0]
