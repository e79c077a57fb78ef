"""The checkpoint that all processes of a run go on from: the first one chooses, the others must see the same file."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch

from monai_ssl_transfer.engines.checkpoints.files import checkpoints, read_newest_checkpoint
from monai_ssl_transfer.errors import TrainingError

Found = tuple[Path, dict[str, Any]]


def read_same_checkpoint(folder: Path) -> Found | None:
    """The newest whole checkpoint of a folder, the same in every process.

    Args:
        folder: must be the same one for all processes, on whatever nodes.

    Returns:
        The file and its content, or None when the first process finds none.

    Raises:
        TrainingError: in all processes alike, when every checkpoint is damaged or a process does not see the same one.
    """
    if idist.get_world_size() == 1:
        return read_newest_checkpoint(folder)
    found: Found | None = None
    trouble: str | None = None
    if idist.get_rank() == 0:
        try:
            found = read_newest_checkpoint(folder)
        except TrainingError as error:
            trouble = str(error)
    chosen, trouble = _told([None if found is None else (found[0].name, _signature(found[0])), trouble])
    if trouble is not None:
        raise TrainingError(trouble)
    if idist.get_rank() > 0:
        found = _read(folder, chosen)
    seen = found is not None if chosen is not None else not checkpoints(folder)
    if not all(_gathered(seen)):
        raise TrainingError(
            f"Not every process finds the checkpoint {chosen[0] if chosen else 'folder without checkpoints'} of the "
            f"first one in {folder}; output_dir (and --continued_run) must be the same folder on all nodes."
        )
    return found


def _read(folder: Path, chosen: tuple[str, str] | None) -> Found | None:
    """The checkpoint that the first process chose, or None where this process does not see the same."""
    if chosen is None:
        return None
    path = folder / chosen[0]
    try:
        same = _signature(path) == chosen[1]
        return (path, torch.load(path, map_location="cpu", weights_only=True)) if same else None
    except (OSError, RuntimeError, zipfile.BadZipFile):
        return None


def _signature(path: Path) -> str:
    """The checksums of everything in a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        facts = [(one.filename, one.file_size, one.CRC) for one in archive.infolist()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _told(values: list[Any]) -> list[Any]:
    """The first process's values."""
    torch.distributed.broadcast_object_list(values, src=0)
    return values


def _gathered(value: bool) -> list[bool]:
    values: list[Any] = [None] * idist.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
