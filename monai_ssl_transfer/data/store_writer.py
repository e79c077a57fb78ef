"""The slice store, write side: one writer at a time, each scan either whole in the store or not at all.

The order of writing makes it so: the frames, then the slice records, then the one series record, each flushed to the
disk before the next. A killed writer therefore leaves at most a tail that no series record knows, and the next writer
cuts it off.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np

from monai_ssl_transfer.data.store_format import (
    FORMAT_NAME,
    FORMAT_VERSIONS,
    HEADER_FILE,
    LOCK_FILE,
    SERIES_DTYPE,
    SERIES_FILE,
    SLICE_DTYPE,
    SLICES_FILE,
    SeriesEntry,
    check_header,
    count_committed,
    map_records,
    record_crc,
    shard_name,
)
from monai_ssl_transfer.data.store_frames import EncodedSlice, encode_slice
from monai_ssl_transfer.errors import DataError

__all__ = ["EncodedSlice", "SliceStoreWriter", "StoreBusyError", "encode_slice"]

logger = logging.getLogger(__name__)

SHARD_BYTES = 1 << 30
# Stores that this process writes to, with its id, for a forked child inherits the table but not the locks.
_own_locks: dict[Path, int] = {}
_own_locks_guard = threading.Lock()


class StoreBusyError(DataError):
    """Another process writes to the store."""


class SliceStoreWriter:
    """Create a store or append to one; use it as a context manager.

    Args:
        path: folder of the store; made if it is missing.
        pixels: "hu" for CT slices (`encode_slice`), "rgb" for photographs (`store_rgb.encode_frame`).

    Raises:
        StoreBusyError: If another process writes to it.
        DataError: If the folder holds something else, other pixels, or if committed data is missing.
    """

    def __init__(self, path: str | Path, pixels: str = "hu") -> None:
        if pixels not in FORMAT_VERSIONS:
            raise DataError(f"pixels {pixels!r} for {path} are unknown: give one of {', '.join(FORMAT_VERSIONS)}")
        self.path = Path(path)
        self.pixels = pixels
        self._files: dict[str, int] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._create()
            self._recover()
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except DataError:
            self.close()
            raise

    def _failure(self, error: OSError) -> DataError:
        return DataError(
            f"cannot write to the slice store {self.path} ({error.strerror or error}): free space or mend access and "
            "run the same command again, every scan finished so far is kept"
        )

    def _lock(self) -> None:
        """Take the lock: released by the system when this process ends, also by SIGKILL while its children live on."""
        busy = f"another process is writing to the slice store {self.path}: wait for it or stop it"
        with _own_locks_guard:
            # A record lock belongs to the process: it neither stops a second writer here nor outlives closing the file.
            if _own_locks.get(self.path.resolve()) == os.getpid():
                raise StoreBusyError(busy)
            file = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(file)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise StoreBusyError(busy) from error
                raise
            self._files[LOCK_FILE] = file
            _own_locks[self.path.resolve()] = os.getpid()

    def _create(self) -> None:
        if not (self.path / HEADER_FILE).exists():
            if any(self.path.glob("*.bin")):
                raise DataError(f"{self.path} holds data but no {HEADER_FILE}: give a new folder or restore that file")
            header = {"format": FORMAT_NAME, "version": FORMAT_VERSIONS[self.pixels]}
            header |= {"slice_record_bytes": SLICE_DTYPE.itemsize, "pixels": self.pixels}
            for name in (SLICES_FILE, SERIES_FILE):
                (self.path / name).touch()
            fresh = self.path / f"{HEADER_FILE}.tmp"
            with fresh.open("w") as file:
                file.write(json.dumps(header, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path / HEADER_FILE)
            self._sync_folder()
        if (held := check_header(self.path)["pixels"]) != self.pixels:
            raise DataError(f"{self.path} holds {held} pixels, not {self.pixels}: give another folder for these")

    def _sync_folder(self) -> None:
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _recover(self) -> None:
        """Find what is committed, cut off the rest and open the files for writing."""
        self._series_count = count_committed(self.path)
        records = map_records(self.path / SERIES_FILE, SERIES_DTYPE, self._series_count)
        self._keys = set(records["series_key"].tolist())
        last = records[-1] if self._series_count else np.zeros((), SERIES_DTYPE)
        self._slice_count = int(last["first"]) + int(last["count"])
        self._shard, self._shard_end = int(last["shard"]), int(last["shard_end"])
        self._chain = bytes(last["chain"])
        map_records(self.path / SLICES_FILE, SLICE_DTYPE, self._slice_count)
        for name in (SLICES_FILE, SERIES_FILE):
            self._files[name] = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._open_shard(self._shard)
        size = os.fstat(self._files["shard"]).st_size
        if size < self._shard_end:
            raise DataError(
                f"{self.path / shard_name(self._shard)} has {size} bytes where {self._shard_end} were committed: "
                "it was damaged, restore it or ingest into a new store"
            )
        self._cut_tails()

    def _open_shard(self, number: int) -> None:
        if "shard" in self._files:
            os.close(self._files.pop("shard"))
        self._files["shard"] = os.open(self.path / shard_name(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._shard = number
        self._sync_folder()

    def _cut_tails(self) -> None:
        os.ftruncate(self._files[SERIES_FILE], self._series_count * SERIES_DTYPE.itemsize)
        os.ftruncate(self._files[SLICES_FILE], self._slice_count * SLICE_DTYPE.itemsize)
        os.ftruncate(self._files["shard"], self._shard_end)
        for later in self.path.glob("shard-*.bin"):
            if later.name > shard_name(self._shard):
                logger.info("%s: an unfinished shard of an interrupted run is removed", later)
                later.unlink()

    def __contains__(self, series_key: str) -> bool:
        return series_key.encode() in self._keys

    def append(self, series: SeriesEntry, slices: Sequence[EncodedSlice]) -> int:
        """Add a series; when this returns, it is on the disk.

        Args:
            series: what is known of it; its key must be new.
            slices: from inferior to superior.

        Returns:
            Number of the series.

        Raises:
            DataError: If the key is in the store, there is no slice, or the disk refuses; the store is as before.
        """
        if LOCK_FILE not in self._files:
            raise DataError(f"the writer of the slice store {self.path} is closed: open a new one")
        if series.series_key in self:
            raise DataError(f"series {series.series_key} is already in the slice store {self.path}: leave it out")
        if not slices:
            raise DataError(f"series {series.series_key} has no slice for the store {self.path}: leave it out")
        if any(one.pixels != self.pixels for one in slices):
            raise DataError(f"series {series.series_key} has other pixels than {self.pixels}: give it to another store")
        before = (self._shard, self._shard_end)
        try:
            self._append(series, slices)
        except OSError as error:
            self._undo(*before)
            raise self._failure(error) from error
        self._keys.add(series.series_key.encode())
        return self._series_count - 1

    def _append(self, series: SeriesEntry, slices: Sequence[EncodedSlice]) -> None:
        if self._shard_end >= SHARD_BYTES:
            self._open_shard(self._shard + 1)
            self._shard_end = 0
        records, end = self._slice_records(slices)
        series_record, chain = self._series_record(series, records, end)
        offset = self._shard_end
        for frame in (frame for one in slices for frame in (one.image, one.mask)):
            _write(self._files["shard"], frame, offset)
            offset += len(frame)
        os.fsync(self._files["shard"])
        _write(self._files[SLICES_FILE], records.tobytes(), self._slice_count * SLICE_DTYPE.itemsize)
        os.fsync(self._files[SLICES_FILE])
        _write(self._files[SERIES_FILE], series_record, self._series_count * SERIES_DTYPE.itemsize)
        os.fsync(self._files[SERIES_FILE])
        self._series_count, self._slice_count = self._series_count + 1, self._slice_count + len(slices)
        self._shard_end, self._chain = end, chain

    def _undo(self, shard: int, shard_end: int) -> None:
        """Back to the last commit. Cutting files needs no space; should it fail all the same, the next writer cuts."""
        self._shard_end = shard_end
        try:
            self._open_shard(shard)
            self._cut_tails()
        except OSError as error:
            logger.warning("%s: the unfinished tail stays until the next run (%s)", self.path, error)
            self.close()

    def _slice_records(self, slices: Sequence[EncodedSlice]) -> tuple[np.ndarray, int]:
        records = np.zeros(len(slices), SLICE_DTYPE)
        records["series"], records["shard"] = self._series_count, self._shard
        for name in ("position", "row_spacing", "column_spacing", "rows", "columns", "body_part", "label", "mask_crc"):
            records[name] = [getattr(one, name) for one in slices]
        records["source"] = np.array([one.source for one in slices], np.uint64)
        records["crc"] = [one.image_crc for one in slices]
        records["nbytes"] = [len(one.image) for one in slices]
        records["mask_nbytes"] = [len(one.mask) for one in slices]
        sizes = np.array([(len(one.image), len(one.mask)) for one in slices], np.uint64).reshape(-1)
        ends = np.uint64(self._shard_end) + np.cumsum(sizes)
        starts = (ends - sizes).reshape(-1, 2)
        records["offset"] = starts[:, 0]
        records["mask_offset"] = np.where(records["mask_nbytes"] > 0, starts[:, 1], 0)
        return records, int(ends[-1])

    def _series_record(self, series: SeriesEntry, records: np.ndarray, shard_end: int) -> tuple[bytes, bytes]:
        for key in (series.series_key, series.patient_key):
            if len(key) != 32 or not key.isascii():
                raise DataError(
                    f"{key!r} is no 32-character key: give salted hashes, never names, to the store {self.path}"
                )
        if len(series.affine) != 16 or len(series.kind.encode()) > 8:
            raise DataError(f"series {series.series_key} needs 16 affine numbers and a kind of at most 8 letters")
        record = np.zeros((), SERIES_DTYPE)
        record["first"], record["count"] = self._slice_count, len(records)
        record["shard"], record["shard_end"] = self._shard, shard_end
        record["slice_spacing"], record["affine"] = series.slice_spacing, series.affine
        record["series_key"], record["patient_key"] = series.series_key.encode(), series.patient_key.encode()
        record["kind"], record["uneven"] = series.kind.encode(), series.uneven
        record["slices_crc"] = zlib.crc32(records.tobytes())
        chain = blake2b(self._chain + record.tobytes(), digest_size=16).digest()
        record["chain"] = np.void(chain)
        record["crc"] = record_crc(record.tobytes())
        return record.tobytes(), chain

    def close(self) -> None:
        """Let go of the store; everything appended is on the disk already."""
        with _own_locks_guard:
            if LOCK_FILE in self._files:
                _own_locks.pop(self.path.resolve(), None)
            for file in self._files.values():
                os.close(file)
            self._files.clear()

    def __enter__(self) -> SliceStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
