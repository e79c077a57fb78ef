"""The files of a folder tree, in a fixed order, and the folders that cannot be searched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from monai_ssl_transfer.data.refusal import RefusedFile

SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
"""Names, in lower case, of files that operating systems leave behind."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")


def list_files(source: Path, exclude: Sequence[Path]) -> tuple[list[str], list[RefusedFile]]:
    """All files below a folder in a fixed order but those in ``exclude``, and the folders that cannot be searched."""
    if not source.is_dir():
        return [str(source)], []
    paths: list[str] = []
    problems: list[RefusedFile] = []
    excluded = {str(path) for path in exclude}

    def unreadable(error: OSError) -> None:
        problems.append(
            RefusedFile(str(error.filename), "unreadable", "a folder that cannot be searched, check its rights")
        )

    for folder, folders, files in os.walk(source, onerror=unreadable):
        folders[:] = sorted(name for name in folders if str(Path(folder) / name) not in excluded)
        for name in folders:
            if (Path(folder) / name).is_symlink():
                sentence = "a link to a folder, which is not followed; ingest that folder itself"
                problems.append(RefusedFile(Path(folder) / name, "linked folder", sentence))
        paths += [str(Path(folder) / name) for name in sorted(files)]
    return paths, problems
