"""All that the result of a run depends on, as short plain values: a run with the same ones is not done again."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.file_hash import file_sha256

CODE = "code"
"""Part of an identity that `hash_of_code` gives."""

Identity = dict[str, str]
"""Name of a part -> its hash or text."""

_WITHOUT_EFFECT = ("cli", "demo", "execution", "export", "label", "study")
"""Rooms that no result of a run depends on, but for the jobs of a study."""
_JOBS = ("study", "running")


def hash_of(value: Any) -> str:
    """SHA-256 of a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_of_files(files: Iterable[str | Path]) -> str:
    """SHA-256 of files' contents, in their order; read in blocks, as weights are large.

    Raises:
        StudyError: one cannot be read.
    """
    found = hashlib.sha256()
    for file in files:
        try:
            found.update(bytes.fromhex(file_sha256(Path(file))))
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


@functools.cache
def hash_of_code(package: Path | None = None) -> str:
    """SHA-256 of the names and contents of all modules that a run's result depends on.

    Read once per process: what is edited later counts from the next start on.

    Args:
        package: its folder; None: the one that is imported.

    Raises:
        StudyError: a module cannot be read.
    """
    top = package or Path(__file__).resolve().parents[2]
    files = sorted(file for file in top.rglob("*.py") if _has_effect(file.relative_to(top).parts))
    return hash_of([[file.relative_to(top).as_posix() for file in files], hash_of_files(files)])


def _has_effect(parts: tuple[str, ...]) -> bool:
    return parts[0] not in _WITHOUT_EFFECT or parts[: len(_JOBS)] == _JOBS


def changed_parts(earlier: Mapping[str, Any] | None, now: Mapping[str, Any], any_code: bool = False) -> list[str]:
    """Names of the parts in which two identities differ.

    Args:
        earlier: None: there is none, so that all parts differ.
        now: of the run that is wanted.
        any_code: whether another code of the package is no difference.
    """
    before = earlier or {}
    differing = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return [name for name in differing if earlier is None or not (any_code and name == CODE)]
