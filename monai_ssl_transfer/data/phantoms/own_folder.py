"""The folder that a phantom data set is written into: a foreign one is left alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from monai_ssl_transfer.errors import DataError


def clear_own_folder(out: Path, mark: str, folders: Sequence[str]) -> None:
    """Make a folder, or empty it if phantoms were written there before.

    Args:
        out: the folder.
        mark: how the ``README.txt`` of our own folder begins.
        folders: what is removed from it.

    Raises:
        DataError: it is a file, or holds something else.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: choose the path of a folder for the phantoms.")
    out.mkdir(parents=True, exist_ok=True)
    readme = out / "README.txt"
    ours = readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(mark)
    if any(out.iterdir()) and not ours:
        raise DataError(f"{out} holds other files: choose an empty folder for the phantoms.")
    for name in folders:
        if (out / name).exists():
            shutil.rmtree(out / name)
