"""Embeddings kept by what they were made of, so that no image goes through one encoder twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save
from torch import Tensor

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

IDENTITY_FILE = "identity.json"
NAME_BYTES = 16
_SUFFIX = ".safetensors"


@dataclass
class Features:
    """Embeddings of N images.

    Args:
        vectors: (N, D) float32.
        blocks: (N, L, 2, D) float32 of a ViT, see `EncoderFeatures`; None for a ResNet.
    """

    vectors: Tensor
    blocks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.vectors)


class EmbeddingCache:
    """A folder of embeddings of one encoder with one preprocessing, in files of some thousand images.

    A file has its own hash as its name and appears under it when it is whole, so that several processes may add to the
    folder at once and a kill costs at most the file that was being made.

    Args:
        folder: of all encoders' embeddings; None keeps nothing.
        identity: what the embeddings depend on besides the image, as plain values.
    """

    def __init__(self, folder: Path | None, identity: dict[str, Any]) -> None:
        text = json.dumps(identity, indent=1, sort_keys=True)
        self.folder = None if folder is None else folder / hashlib.sha256(text.encode()).hexdigest()[:32]
        self._text = text

    def load(self, names: Sequence[str]) -> tuple[Features | None, np.ndarray]:
        """What is known of some images.

        Args:
            names: content hashes, 32 hexadecimal digits each.

        Returns:
            Embeddings in the order of the names, 0 where not known (None if nothing is); and (N,) bool, which are.
        """
        order: dict[bytes, int] = {}
        inverse = np.asarray([order.setdefault(bytes.fromhex(name), len(order)) for name in names], dtype=np.int64)
        known = np.zeros(len(order), dtype=bool)
        found: Features | None = None
        for file in [] if self.folder is None else sorted(self.folder.glob(f"*{_SUFFIX}")):
            rows, places = _matches(file, order, known)
            part = _whole(file) if len(rows) else None
            if part is None:
                continue
            found = found or _empty(part, len(order))
            found.vectors[rows] = torch.from_numpy(part["vectors"])[places]
            if found.blocks is not None:
                found.blocks[rows] = torch.from_numpy(part["blocks"])[places]
            known[rows] = True
        if found is not None and len(order) < len(names):
            found = Features(found.vectors[inverse], None if found.blocks is None else found.blocks[inverse])
        return found, known[inverse]

    def add(self, names: Sequence[str], features: Features) -> None:
        """Keep the embeddings of some images.

        Args:
            names: content hashes, 32 hexadecimal digits each.
            features: a row for each.

        Raises:
            DataError: the folder cannot be written.
        """
        if self.folder is None or not names:
            return
        content = {"names": _as_bytes(names), "vectors": features.vectors.numpy()}
        if features.blocks is not None:
            content["blocks"] = features.blocks.numpy()
        raw = save({key: np.ascontiguousarray(value) for key, value in content.items()})
        try:
            if not (self.folder / IDENTITY_FILE).exists():
                write_durably(self.folder / IDENTITY_FILE, lambda stream: stream.write(self._text.encode()))
            write_durably(self.folder / (_digest(raw) + _SUFFIX), lambda stream: stream.write(raw))
        except OSError as error:
            raise DataError(
                f"embeddings could not be kept in {self.folder} ({error.strerror}): free space there, or give another "
                "folder with --cache (none keeps nothing)."
            ) from error


def cache_folder(given: str | Path | None = "") -> Path | None:
    """The folder that a setting means.

    Args:
        given: a folder; "" for the user's own, ``$XDG_CACHE_HOME/monai_ssl_transfer/embeddings`` (``~/.cache`` where
            the variable is not set); None or "none" for no cache.
    """
    if given is None or str(given).lower() == "none":
        return None
    if str(given) == "":
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "monai_ssl_transfer" / "embeddings"
    return Path(given).expanduser()


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]


def _as_bytes(names: Sequence[str]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(names)), dtype=np.uint8).reshape(len(names), NAME_BYTES)


def _matches(file: Path, order: Mapping[bytes, int], known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are wanted and not known yet, and their places in a file."""
    none = np.empty(0, dtype=np.int64)
    try:
        with safe_open(str(file), framework="numpy") as content:
            raw = content.get_tensor("names").tobytes()
    except FileNotFoundError:  # found damaged and removed by another process
        return none, none
    except (OSError, ValueError, SafetensorError):
        _discard(file)
        return none, none
    keys = (raw[start : start + NAME_BYTES] for start in range(0, len(raw), NAME_BYTES))
    rows = np.asarray([order.get(key, -1) for key in keys], dtype=np.int64)
    places = np.flatnonzero(rows >= 0)
    places = places[~known[rows[places]]]
    return rows[places], places


def _whole(file: Path) -> dict[str, np.ndarray] | None:
    """The content of a file that has the hash of its name; another one is removed."""
    try:
        raw = file.read_bytes()
    except OSError:
        raw = b""
    if _digest(raw) == file.stem:
        return load(raw)
    _discard(file)
    return None


def _discard(file: Path) -> None:
    logger.warning("%s is damaged: it is removed and its images are embedded again", file)
    file.unlink(missing_ok=True)


def _empty(part: dict[str, np.ndarray], count: int) -> Features:
    blocks = torch.zeros(count, *part["blocks"].shape[1:]) if "blocks" in part else None
    return Features(torch.zeros(count, *part["vectors"].shape[1:]), blocks)
