"""Photographs to predict on: one file, or everything in a folder."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case
from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES
from monai_ssl_transfer.data.file_listing import SYSTEM_FILES
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)


def photographs(path: str | Path) -> list[Case]:
    """List photographs without labels.

    Args:
        path: a photograph, or a folder of them (with its sub-folders; hidden files are left out, and the log tells how
            many others are passed over by their names).

    Returns:
        One dict per photograph in natural order: "name" and "group" (path below the folder, with suffix), "image", and
        "relative": path below the folder without suffix, to name outputs by; where two photographs differ in the suffix
        alone it stays, as in ``polyp_jpg`` and ``polyp_png``.

    Raises:
        DataError: there is no photograph.
    """
    given = Path(path)
    kinds = ", ".join(FRAME_SUFFIXES)
    if given.is_file():
        if given.suffix.lower() not in FRAME_SUFFIXES:
            raise DataError(f"{given} is no photograph by its name: give a file that ends in one of {kinds}.")
        found, folder = [given], given.parent
    elif given.is_dir():
        files, folder = [file for file in given.rglob("*") if _counts(file, given)], given
        found = [file for file in files if file.suffix.lower() in FRAME_SUFFIXES]
        if found and len(found) < len(files):
            over = len(files) - len(found)
            logger.warning("%s: %d files are passed over, their names do not end in one of %s", given, over, kinds)
    else:
        raise DataError(f"{given} does not exist: give a photograph or a folder of photographs.")
    if not found:
        raise DataError(f"{given} holds no photograph ({kinds}): give the folder of the photographs.")
    found.sort(key=lambda file: natural_key(file.relative_to(folder).as_posix()))
    names = _output_names([file.relative_to(folder) for file in found])
    return [
        {"name": inside.as_posix(), "image": str(folder / inside), "group": inside.as_posix(), "relative": relative}
        for inside, relative in names.items()
    ]


def _counts(file: Path, folder: Path) -> bool:
    """Whether it is a file that a user put there."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.name.lower() not in SYSTEM_FILES and file.is_file()


def _output_names(files: list[Path]) -> dict[Path, str]:
    """Output name of every file; no two are the same."""
    bare = {file: file.with_suffix("").as_posix() for file in files}
    frequency = Counter(bare.values())
    names = {file: name if frequency[name] == 1 else f"{name}_{file.suffix[1:]}" for file, name in bare.items()}
    owner: dict[str, Path] = {}
    for file, name in names.items():
        if owner.setdefault(name, file) != file:
            raise DataError(f"the outputs of {owner[name]} and {file} would both be called {name}: rename one of them.")
    return names
