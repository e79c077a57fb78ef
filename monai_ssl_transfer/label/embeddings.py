"""Embeddings of all images of a datastore, made in the background and kept by content."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.embedding.cache import EmbeddingCache, Features
from monai_ssl_transfer.errors import DataError, UserError
from monai_ssl_transfer.file_hash import file_sha256
from monai_ssl_transfer.label.embedding_encoder import ImageEncoder, find_encoder, is_photograph

logger = logging.getLogger(__name__)

FILES_NAME = "files.json"
_TOGETHER = 64
_SECONDS_KEPT = 15.0
_NICENESS = 10

Signature = tuple[int, int]


class ImageSource(Protocol):
    """What is asked of MONAI Label's datastore."""

    def list_images(self) -> list[str]:
        """Ids of all images."""

    def get_image_uri(self, image_id: str) -> str:
        """File of an image; a datastore of a DICOMweb server downloads it."""


class DatastoreEmbeddings:
    """One vector per image of a datastore, by one encoder.

    A thread of low priority embeds images in random order, so that the part that is done stands for the whole. Vectors
    are kept on disk by the content of image and encoder: a restart, a renamed image or one that comes back costs
    nothing. A file that changes is embedded again.

    Args:
        datastore: its images are embedded.
        encoder: file of an encoder; None: see `find_encoder`, with the bundles in ``model`` beside the folder.
        folder: for embeddings, made when the first are there.
    """

    def __init__(self, datastore: ImageSource, encoder: Path | None, folder: Path) -> None:
        self.folder = folder
        self._datastore = datastore
        self._given = encoder
        self._encoder: ImageEncoder | None = None
        self._cache: EmbeddingCache | None = None
        self._problem = ""
        self._vectors: dict[str, np.ndarray] = {}
        self._seen: dict[str, Signature] = {}
        self._failed: dict[str, str] = {}
        self._total = 0
        self._names: dict[str, tuple[Signature, str]] = _read_names(folder / FILES_NAME)
        self._lock = threading.Lock()
        self._wake, self._stopping, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to embed in the background; once is enough."""
        if self._thread is None:
            self._wake.set()
            self._thread = threading.Thread(target=self._work, name="embeddings", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread after the image it is at."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def update(self) -> None:
        """Look for images that came, changed or went; returns at once."""
        self._idle.clear()
        self._wake.set()

    def wait(self, seconds: float) -> bool:
        """Wait until all images are looked at; False when the time is over before."""
        return self._idle.wait(seconds)

    def embedded(self, image_ids: Sequence[str]) -> list[str]:
        """Those of some images that have a vector, in the same order."""
        with self._lock:
            return [one for one in image_ids if one in self._vectors]

    def vectors(self, image_ids: Sequence[str]) -> np.ndarray:
        """Vectors of some images.

        Args:
            image_ids: of the datastore.

        Returns:
            (N, D) float32.

        Raises:
            DataError: one of them has none (yet).
        """
        with self._lock:
            for one in image_ids:
                if one not in self._vectors:
                    raise DataError(self._why_not(one))
            return np.stack([self._vectors[one] for one in image_ids]) if image_ids else np.empty((0, 0), np.float32)

    def status(self) -> dict[str, Any]:
        """How far it is.

        Returns:
            "done" and "total" images, "failed": a sentence by image id, "encoder": its file, and "problem": why
            nothing can be embedded, else "".
        """
        with self._lock:
            return {
                "done": len(self._vectors),
                "total": self._total,
                "failed": dict(self._failed),
                "encoder": "" if self._encoder is None else str(self._encoder.file),
                "problem": self._problem,
            }

    def why_none(self) -> str:
        """Why there is no vector to choose by, in one sentence."""
        found = self.status()
        if found["problem"]:
            return str(found["problem"])
        if found["failed"] and len(found["failed"]) == found["total"]:
            return f"none of the {found['total']} images could be embedded: {next(iter(found['failed'].values()))}"
        return f"{found['done']} of {found['total']} images are embedded so far: ask again in a moment."

    def _why_not(self, image_id: str) -> str:
        return self._failed.get(image_id) or self._problem or f"image {image_id} is not embedded yet: ask again later."

    def _work(self) -> None:
        if hasattr(os, "setpriority"):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                self._round()
                problem = ""
            except UserError as error:
                problem = str(error)
            except Exception as error:  # the thread must live on; the reason is told to whoever asks
                logger.exception("embedding stopped")
                problem = f"embedding stopped ({type(error).__name__}: {error}): see the server's log."
            with self._lock:
                self._problem = problem
            if not self._wake.is_set():
                self._idle.set()

    def _round(self) -> None:
        """Drop what went, embed what came."""
        found = {one: self._datastore.get_image_uri(one) for one in self._datastore.list_images()}
        waiting = self._reconciled(found)
        if not waiting:
            return
        self._load_encoder(is_photograph(next(iter(found.values()))))
        random.Random(0).shuffle(waiting)
        for start in range(0, len(waiting), _TOGETHER):
            if self._stopping.is_set():
                return
            self._embed({one: found[one] for one in waiting[start : start + _TOGETHER]})

    def _reconciled(self, found: dict[str, str]) -> list[str]:
        """Forget images that went or changed; ids of those that have to be embedded."""
        signatures = {one: _signature(uri) for one, uri in found.items()}
        with self._lock:
            self._total = len(found)
            for one, seen in list(self._seen.items()):
                if signatures.get(one) != seen:
                    self._vectors.pop(one, None)
                    self._failed.pop(one, None)
                    del self._seen[one]
            return [one for one in found if one not in self._seen]

    def _load_encoder(self, photographs: bool) -> None:
        if self._encoder is None:
            file = find_encoder(self._given, self.folder.parent / "model", self.folder / "encoder", photographs)
            encoder = ImageEncoder(file)
            self._cache = EmbeddingCache(self.folder, encoder.identity)
            with self._lock:
                self._encoder = encoder

    def _embed(self, files: dict[str, str]) -> None:
        """Vectors of some images, from the cache or the encoder; what is made is kept now and then."""
        names = {one: name for one, file in files.items() if (name := self._named(one, file))}
        if self._cache is None or self._encoder is None or not names:
            return
        known, there = self._cache.load(list(names.values()))
        fresh: dict[str, np.ndarray] = {}
        since = time.monotonic()
        for row, (one, name) in enumerate(names.items()):
            if self._stopping.is_set():
                break
            if known is not None and there[row]:
                self._take(one, known.vectors[row].numpy())
                continue
            try:
                vector = fresh.get(name)
                vector = self._encoder(files[one]) if vector is None else vector
            except (UserError, OSError, ValueError, RuntimeError) as error:
                self._refuse(one, files[one], error)
                continue
            fresh[name] = vector
            self._take(one, vector)
            if time.monotonic() - since > _SECONDS_KEPT:
                self._keep(fresh)
                fresh, since = {}, time.monotonic()
        self._keep(fresh)

    def _named(self, image_id: str, file: str) -> str:
        """Content hash of an image; "" where it cannot be read, which is recorded."""
        signature = _signature(file)
        known = self._names.get(image_id)
        if known is not None and known[0] == signature:
            return known[1]
        try:
            content = file_sha256(Path(file))
        except OSError as error:
            self._refuse(image_id, file, error)
            return ""
        self._names[image_id] = (signature, content[:32])
        return self._names[image_id][1]

    def _take(self, image_id: str, vector: np.ndarray) -> None:
        with self._lock:  # the signature from before the file was read: a change since then is seen in the next round
            self._vectors[image_id], self._seen[image_id] = vector, self._names[image_id][0]

    def _refuse(self, image_id: str, file: str, error: Exception) -> None:
        sentence = str(error) if isinstance(error, UserError) else f"{file} cannot be embedded ({error}): replace it."
        logger.warning("image %s: %s", image_id, sentence)
        with self._lock:
            self._failed[image_id], self._seen[image_id] = sentence, _signature(file)

    def _keep(self, fresh: dict[str, np.ndarray]) -> None:
        if not fresh or self._cache is None:
            return
        table = json.dumps({one: [*signature, name] for one, (signature, name) in self._names.items()})
        try:
            self._cache.add(list(fresh), Features(torch.from_numpy(np.stack(list(fresh.values())))))
            write_durably(self.folder / FILES_NAME, lambda stream: stream.write(table.encode()))
        except (DataError, OSError) as error:
            logger.warning("embeddings stay in memory only: %s", error)


def _signature(file: str) -> Signature:
    try:
        found = Path(file).stat()
    except OSError:
        return (-1, -1)
    return (found.st_size, found.st_mtime_ns)


def _read_names(file: Path) -> dict[str, tuple[Signature, str]]:
    """Content hashes of an earlier run; one that cannot be read only costs reading the images again."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return {one: ((int(size), int(time_ns)), str(name)) for one, (size, time_ns, name) in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
