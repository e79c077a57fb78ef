"""Opening a file of weights, whatever it is, without running anything that is in it."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from monai_ssl_transfer.errors import WeightsError

BLOCK = 1 << 22
"""Bytes that are hashed at once."""


@dataclass(frozen=True)
class Checkpoint:
    """What is in a file of weights.

    Args:
        file: where it was read.
        format: how it is written: "safetensors", "torch", "torch before 1.6", "torch with foreign classes", ...
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
        digest = hashlib.sha256()
        with self.file.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()


def read_file(path: str | Path) -> Checkpoint:
    """Read a file of weights; what is in it is never executed.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        WeightsError: if there is no such file, it is damaged, or it is something else.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"{file} does not exist: give the path of a file with weights.")
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)


def _read_safetensors(file: Path) -> Checkpoint:
    try:
        with safe_open(file, framework="pt") as reader:
            metadata = reader.metadata() or {}
            content = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} is damaged ({error}): copy it again from its source.") from error
    return Checkpoint(file, "safetensors", content, metadata)


def _read_torch(file: Path) -> Checkpoint:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{file} cannot be read as weights ({reason}): copy it again from its source.") from error
    return Checkpoint(file, "torch", content)
