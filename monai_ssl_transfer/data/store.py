"""The slice store, read side: a reader that opens in constant time and serves any number of workers and ranks."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.data.store_format import (
    SERIES_DTYPE,
    SERIES_FILE,
    SLICE_DTYPE,
    SLICES_FILE,
    SeriesEntry,
    check_header,
    count_committed,
    map_records,
    record_is_whole,
    shard_name,
)
from monai_ssl_transfer.data.store_frames import checksum, decode_image, decode_mask
from monai_ssl_transfer.data.store_rgb import decode_frame
from monai_ssl_transfer.errors import DataError

__all__ = ["SLICE_DTYPE", "SeriesEntry", "SliceStore"]

# Open shards per process: far below the usual limit of 1,024 open files, which data loaders need as well.
OPEN_SHARDS = 128
# What reading needs of a record, unpacked from the mapped bytes: a NumPy structured scalar costs 15 times as much.
_IMAGE_FIELDS = struct.Struct("<16x2H12xI4xQ2I")
_MASK_FIELDS = struct.Struct("<16x2H12xI20xQ2I")


class _Shard:
    """An open shard, closed when nobody reads from it any more, so that one thread may evict what another uses."""

    __slots__ = ("file",)

    def __init__(self, file: Path) -> None:
        self.file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class SliceStore:
    """Read slices and masks in any order; opens in constant time, for any number of workers and ranks at once.

    An open store pickles as its path and works in forked and spawned workers and in threads: every read names its own
    offset. It shows what was committed when it was opened, also while a writer appends.

    Args:
        path: folder of the store.

    Attributes:
        pixels: "hu" for CT slices, "rgb" for photographs and frames of videos.
        index: (slices,) records of `SLICE_DTYPE`, memory-mapped.

    Raises:
        DataError: If the folder is no readable slice store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.pixels: str = check_header(self.path)["pixels"]
        self._decode = decode_frame if self.pixels == "rgb" else decode_image
        if not (self.path / SERIES_FILE).exists():
            raise DataError(f"{self.path / SERIES_FILE} is missing: the store was damaged, restore or ingest again")
        self.series_count = count_committed(self.path)
        self._series = map_records(self.path / SERIES_FILE, SERIES_DTYPE, self.series_count)
        slices = int(self._series[-1]["first"]) + int(self._series[-1]["count"]) if self.series_count else 0
        self.index = map_records(self.path / SLICES_FILE, SLICE_DTYPE, slices)
        self._bytes = memoryview(self.index).cast("B") if slices else memoryview(b"")
        self._shards: dict[int, _Shard] = {}
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "slices": len(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A worker must see the same slices as the process that sent the store, though a writer may have added some.
        self.__init__(state["path"])  # type: ignore[misc]
        self._keep(state["slices"])

    def _keep(self, slices: int) -> None:
        if len(self) < slices:
            raise DataError(f"{self.path} has {len(self)} slices and had {slices}: it was replaced while in use")
        if len(self) > slices:
            self.series_count = int(np.searchsorted(self._series["first"], slices))
            self._series, self.index = self._series[: self.series_count], self.index[:slices]

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"SliceStore({str(self.path)!r}: {len(self)} slices of {self.series_count} series)"

    def _check(self, i: int) -> int:
        if not 0 <= i < len(self.index):
            raise IndexError(f"slice {i} of {len(self.index)} in {self.path}")
        return int(i)

    def _frame(self, shard: int, offset: int, nbytes: int, crc: int, what: str) -> memoryview:
        """Bytes of a frame, checked; valid until this thread's next read."""
        opened = self._shards.get(shard)
        try:
            if opened is None:
                opened = self._open(shard)
            scratch = getattr(self._local, "scratch", None)
            if scratch is None or len(scratch) < nbytes:
                scratch = self._local.scratch = memoryview(bytearray(max(nbytes, 1 << 19)))
            frame = scratch[:nbytes]
            got = os.preadv(opened.file, [frame], offset)
        except OSError as error:
            raise self._damage(shard, what, str(error)) from error
        if got != nbytes:
            raise self._damage(shard, what, "the file ends too early")
        if checksum(frame) != crc:
            raise self._damage(shard, what, "the checksum does not fit")
        return frame

    def _open(self, shard: int) -> _Shard:
        while len(self._shards) >= OPEN_SHARDS:
            self._shards.pop(next(iter(self._shards)), None)
        return self._shards.setdefault(shard, _Shard(self.path / shard_name(shard)))

    def _damage(self, shard: int, what: str, reason: str) -> DataError:
        return DataError(
            f"{self.path / shard_name(shard)}: {what} is damaged ({reason}): restore the file or ingest its scan again"
        )

    def read(self, i: int) -> np.ndarray:
        """Slice ``i``.

        Args:
            i: number of the slice, 0 <= i < len(store).

        Returns:
            (rows, columns) int16 in HU, or (rows, columns, 3) uint8 where ``pixels`` is "rgb"; the caller's own.

        Raises:
            DataError: If the stored bytes are damaged; names the shard.
        """
        i = self._check(i)
        rows, columns, shard, offset, nbytes, crc = _IMAGE_FIELDS.unpack_from(self._bytes, i * SLICE_DTYPE.itemsize)
        frame = self._frame(shard, offset, nbytes, crc, f"slice {i}")
        try:
            return self._decode(frame, rows, columns)
        except (RuntimeError, ValueError) as error:
            raise self._damage(shard, f"slice {i}", str(error)) from error

    def read_mask(self, i: int) -> np.ndarray | None:
        """Mask of slice ``i``.

        Returns:
            (rows, columns) uint8, or None where the slice has no mask.

        Raises:
            DataError: If the stored bytes are damaged; names the shard.
        """
        i = self._check(i)
        rows, columns, shard, offset, nbytes, crc = _MASK_FIELDS.unpack_from(self._bytes, i * SLICE_DTYPE.itemsize)
        if not nbytes:
            return None
        frame = self._frame(shard, offset, nbytes, crc, f"the mask of slice {i}")
        try:
            return decode_mask(frame, rows, columns)
        except (RuntimeError, ValueError) as error:
            raise self._damage(shard, f"the mask of slice {i}", str(error)) from error

    def series(self, i: int) -> SeriesEntry:
        """What is known of series ``i``."""
        if not 0 <= i < self.series_count:
            raise IndexError(f"series {i} of {self.series_count} in {self.path}")
        record = self._series[i]
        return SeriesEntry(
            series_key=record["series_key"].decode(),
            patient_key=record["patient_key"].decode(),
            kind=record["kind"].decode(),
            slice_spacing=float(record["slice_spacing"]),
            uneven=bool(record["uneven"]),
            affine=tuple(float(x) for x in record["affine"]),
        )

    def series_range(self, i: int) -> range:
        """Numbers of the slices of series ``i``, from inferior to superior."""
        if not 0 <= i < self.series_count:
            raise IndexError(f"series {i} of {self.series_count} in {self.path}")
        first = int(self._series[i]["first"])
        return range(first, first + int(self._series[i]["count"]))

    def neighbours(self, i: int) -> tuple[int, int]:
        """Slices below and above ``i`` in its series; ``i`` itself at the ends."""
        own = self.series_range(int(self.index[self._check(i)]["series"]))
        return max(i - 1, own.start), min(i + 1, own.stop - 1)

    def patient_numbers(self) -> np.ndarray:
        """Group of every slice.

        Returns:
            (len(store),) int64, equal for equal patient keys.
        """
        numbers = np.unique(self._series["patient_key"], return_inverse=True)[1].reshape(-1)
        return np.repeat(numbers.astype(np.int64), self._series["count"])

    @property
    def content_hash(self) -> str:
        """Hash of everything committed: 32 hexadecimal characters, read from the last record."""
        return bytes(self._series[-1]["chain"]).hex() if self.series_count else "0" * 32

    def verify(self) -> list[str]:
        """Read everything once.

        Returns:
            One sentence per damaged record, slice or mask; empty for a sound store.
        """
        return list(self._verify())

    def _verify(self) -> Iterator[str]:
        for number in range(self.series_count):
            own = self.series_range(number)
            if not record_is_whole(self._series[number].tobytes()):
                yield f"{self.path / SERIES_FILE}: the record of series {number} is damaged"
                continue
            if zlib.crc32(self.index[own.start : own.stop].tobytes()) != int(self._series[number]["slices_crc"]):
                yield f"{self.path / SLICES_FILE}: the records of series {number} are damaged"
                continue
            for i in own:
                for read in (self.read, self.read_mask):
                    try:
                        read(i)
                    except DataError as error:
                        yield str(error)
