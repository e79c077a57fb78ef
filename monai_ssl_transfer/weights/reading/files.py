"""Opening a file of weights, whatever it is, without running anything that is in it."""

from __future__ import annotations

import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.file_hash import file_sha256
from monai_ssl_transfer.weights.reading.augreg import read_augreg
from monai_ssl_transfer.weights.reading.inert import load_inert, load_torch
from monai_ssl_transfer.weights.reading.other_files import refuse_other_file

HEAD = 512
"""Bytes at the start of a file that show what it is."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
HEADER_LIMIT = 1 << 27
"""Bytes that the header of a safetensors file can have at most."""
LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")
"""The number that torch wrote first before version 1.6."""
DAMAGE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    ImportError,
    struct.error,
)
"""What reading a damaged or a malicious pickle may end in."""


@dataclass(frozen=True, eq=False)  # tensors cannot be compared so
class Checkpoint:
    """What is in a file of weights.

    Args:
        file: where it was read.
        format: how it is written: "safetensors", "torch", "torch before 1.6", either of them "with foreign classes",
            or "AugReg npz".
        content: what it holds, nested as in the file, with tensors on the CPU.
        metadata: texts beside the tensors (safetensors only).
        placeholders: full names of the classes that the file asks for and that were read as inert values.
    """

    file: Path
    format: str
    content: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    placeholders: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal digits; computed when it is first asked for."""
        return file_sha256(self.file)


def read_file(path: str | Path) -> Checkpoint:
    """Read a file of weights; what is in it is never executed.

    What it is shows in its first bytes; its name does not count. Tensors are mapped from the file where its format
    allows (safetensors and the zip format of torch), so that only what is used is read.

    Args:
        path: a file of torch (any version), safetensors, or an AugReg `.npz`.

    Returns:
        Its content.

    Raises:
        WeightsError: if there is no such file, it is damaged, it is something else, or it asks for a program to be run.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise WeightsError(f"{file} {what}: give the path of a file with weights.")
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    if head.startswith(ZIP):
        return _read_zip(file)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < HEADER_LIMIT:
        return _read_safetensors(file)
    if LEGACY_MAGIC not in head[:64] or head[:1] != b"\x80" or tarfile.is_tarfile(file):
        refuse_other_file(file, head)
    return _read_torch(file, "torch before 1.6", mmap=False)


def _read_safetensors(file: Path) -> Checkpoint:
    try:
        with safe_open(file, framework="pt") as reader:
            metadata = reader.metadata() or {}
            content = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise _damaged(file, error) from error
    return Checkpoint(file, "safetensors", content, metadata)


def _read_zip(file: Path) -> Checkpoint:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise WeightsError(
            f"{file} is cut off or damaged (its table of contents, at the end, cannot be read): copy it again."
        ) from error
    if names and all(name.endswith(".npy") for name in names):
        return Checkpoint(file, "AugReg npz", read_augreg(file))
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise WeightsError(
            f"{file} is a program of TorchScript, which is not run here: open it by torch.jit.load where you trust it, "
            "save its state_dict() by torch.save and give that file."
        )
    if "data.pkl" not in inside:
        raise WeightsError(
            f"{file} is a zip archive of other files ({', '.join(names[:3]) or 'none'}): "
            "unpack it and give the file of weights inside."
        )
    return _read_torch(file, "torch", mmap=True)


def _read_torch(file: Path, name: str, mmap: bool) -> Checkpoint:
    """Read a torch file as plain weights, or else with placeholders."""
    foreign: tuple[str, ...] = ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual protocols, which the second reader knows
            try:
                content = load_torch(file, mmap, weights_only=True)
            except pickle.UnpicklingError:
                # TorchScript ends in a RuntimeError above, so it never comes here, whatever its names look like
                content, foreign = load_inert(file, mmap)
    except DAMAGE as error:
        raise _damaged(file, error) from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{file} holds a {type(content).__name__}, not tensors under names: save the network's state_dict()."
        )
    kind = f"{name} with foreign classes" if foreign else name
    return Checkpoint(file, kind, content, placeholders=foreign)


def _damaged(file: Path, error: BaseException) -> WeightsError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return WeightsError(f"{file} is cut off or damaged ({reason[:200]}): copy it again from its source.")
