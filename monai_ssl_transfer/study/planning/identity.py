"""All that the result of a run depends on, as short plain values: a run with the same ones is not done again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import StudyError

Identity = dict[str, str]
"""Name of a part -> its hash or text."""


def hash_of(value: Any) -> str:
    """SHA-256 of a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_of_files(files: Iterable[str | Path]) -> str:
    """SHA-256 of files' contents, in their order.

    Raises:
        StudyError: one cannot be read.
    """
    found = hashlib.sha256()
    for file in files:
        try:
            found.update(hashlib.sha256(Path(file).read_bytes()).digest())
        except OSError as error:
            raise StudyError(
                f"{file} cannot be read ({error.strerror}): give the study a file that is there."
            ) from error
    return found.hexdigest()


def hash_of_folder(folder: str | Path) -> str:
    """SHA-256 of the names, sizes and times of all files below a folder, or of one file.

    Contents are not read: data sets are large. A copy with new times counts as changed.

    Raises:
        StudyError: it is not there or cannot be listed.
    """
    top = Path(folder)
    lines = []

    def refuse(error: OSError) -> None:
        raise StudyError(f"{error.filename} cannot be listed ({error.strerror}): give the study data that can be read.")

    if top.is_file():
        return hash_of([top.name, top.stat().st_size, top.stat().st_mtime_ns])
    for place, _, names in os.walk(top, onerror=refuse):
        for name in names:
            file = Path(place) / name
            about = file.stat()
            lines.append([os.fsencode(file.relative_to(top)).hex(), about.st_size, about.st_mtime_ns])
    return hash_of(sorted(lines))


def changed_parts(earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """Names of the parts in which two identities differ; all of them where there is no earlier one."""
    return [name for name in {**now, **(earlier or {})} if (earlier or {}).get(name) != now.get(name)]
