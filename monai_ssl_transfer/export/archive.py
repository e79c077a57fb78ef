"""A folder that is either whole or not there, and its zip, which is the same for the same content."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import ExportError

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_INCOMPRESSIBLE = (".pt", ".ts", ".safetensors")


def publish(target: Path, fill: Callable[[Path], None], overwrite: bool = False, option: str = "--out") -> None:
    """Write a folder beside its place and put it there in one step.

    Args:
        target: the folder.
        fill: writes the content into the folder that it is given.
        overwrite: whether a folder that is there is replaced; it stays until the new one is complete.
        option: with which the user chose the place, for messages.

    Raises:
        ExportError: the folder is there already, or cannot be written.
    """
    # a kill leaves these behind; the next export to this place puts the old folder back and removes the part
    temporary, old = (target.with_name(f".{target.name}.{kind}") for kind in ("part", "old"))
    if old.exists() and not target.exists():
        old.rename(target)
    refuse_existing(target, overwrite, option)
    try:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        _flush(temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
    except OSError as error:
        remedy = "free space there or choose" if error.errno in _NO_SPACE else "choose"
        raise ExportError(
            f"the bundle could not be written to {target} ({error.strerror or error}): {remedy} another {option}; "
            "nothing is left of the attempt."
        ) from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def refuse_existing(target: Path, overwrite: bool, option: str = "--out") -> None:
    """Stop before work is done for a place that is taken, or that cannot be one.

    Args:
        target: the place.
        overwrite: whether what is there may be replaced.
        option: with which the user chose the place, for messages.

    Raises:
        ExportError: the target is there and may not be replaced, or a file stands in its way.
    """
    if target.exists() and not overwrite:
        raise ExportError(f"{target} is there already: choose another {option}, or replace it with --overwrite.")
    blocked = next((one for one in target.parents if one.exists() and not one.is_dir()), None)
    if blocked is not None:
        raise ExportError(f"{blocked} is a file, so nothing can be written below it: choose another {option}.")


def _flush(folder: Path) -> None:
    """Have the content on the disk before the name shows it."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("r+b") as stream:
                os.fsync(stream.fileno())


def write_zip(folder: Path, file: Path) -> None:
    """Pack a bundle with its base folder: sorted names, one date, so that equal content gives equal bytes.

    What Python compiles beside the bundle's scripts when it is run stays out.

    Args:
        folder: the bundle.
        file: where the zip goes; it is whole or not there.

    Raises:
        ExportError: it cannot be written.
    """

    def pack(stream: object) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
            for path in sorted(one for one in folder.rglob("*") if one.is_file() and one.suffix != ".pyc"):
                entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", _EARLIEST)
                packed = zipfile.ZIP_STORED if path.suffix in _INCOMPRESSIBLE else zipfile.ZIP_DEFLATED
                entry.compress_type, entry.external_attr = packed, 0o644 << 16
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as sink:
                    shutil.copyfileobj(source, sink, _BLOCK)

    try:
        write_durably(file, pack)
    except OSError as error:
        remedy = "free space there" if error.errno in _NO_SPACE else "choose another --out"
        raise ExportError(f"{file} could not be written ({error.strerror}): {remedy}.") from error
