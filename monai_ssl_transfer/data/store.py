"""The slice store, read side: the files' layout, the records and a reader that opens in constant time.

A store is a folder of five kinds of file; nothing in it is parsed when it opens, whatever its size:

* ``store.json``: name and version of the format;
* ``shard-00000.bin`` ...: one compressed frame (a Blosc2 chunk) per slice or mask, one after the other;
* ``slices.bin``: one `SLICE_DTYPE` record per slice, memory-mapped;
* ``series.bin``: one `SERIES_DTYPE` record per series, written last, so that a series exists once its record does;
* ``writer.lock``: held by the one process that writes.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.data.store_frames import checksum, decode_image, decode_mask
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

FORMAT_NAME = "monai-ssl-transfer slice store"
FORMAT_VERSION = 1
HEADER_FILE = "store.json"
SLICES_FILE = "slices.bin"
SERIES_FILE = "series.bin"
LOCK_FILE = "writer.lock"
# Open shards per process: far below the usual limit of 1,024 open files, which data loaders need as well.
OPEN_SHARDS = 128

SLICE_DTYPE = np.dtype(
    [
        ("series", "<u4"),
        ("position", "<f4"),
        ("row_spacing", "<f4"),
        ("column_spacing", "<f4"),
        ("rows", "<u2"),
        ("columns", "<u2"),
        ("body_part", "u1"),
        ("label", "<i2"),
        ("source", "<u8"),
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("nbytes", "<u4"),
        ("crc", "<u4"),
        ("mask_offset", "<u8"),
        ("mask_nbytes", "<u4"),
        ("mask_crc", "<u4"),
    ],
    align=True,
)
# The fields that reading needs, unpacked straight from the mapped bytes: NumPy's structured scalars cost 15 times as much.
_IMAGE_FIELDS = struct.Struct("<16x2H12xI4xQ2I")
_MASK_FIELDS = struct.Struct("<16x2H12xI20xQ2I")

SERIES_DTYPE = np.dtype(
    [
        ("first", "<u8"),  # number of its first slice
        ("count", "<u4"),
        ("shard", "<u4"),  # the shard that holds its frames ...
        ("shard_end", "<u8"),  # ... and where the committed bytes of that shard end
        ("slice_spacing", "<f8"),
        ("affine", "<f8", (16,)),
        ("series_key", "S32"),
        ("patient_key", "S32"),
        ("kind", "S8"),
        ("uneven", "u1"),
        ("chain", "V16"),  # hash of this record and all before it
        ("slices_crc", "<u4"),  # CRC-32 of its slice records
        ("crc", "<u4"),  # CRC-32 of this record up to here
    ],
    align=True,
)


@dataclass(frozen=True)
class SeriesEntry:
    """What the store keeps of a series.

    Attributes:
        series_key: 32 hexadecimal characters, a salted hash, unique in the store.
        patient_key: 32 hexadecimal characters, a salted hash.
        kind: ``"dicom"`` or ``"nifti"``.
        slice_spacing: median gap between neighbouring slices in mm, 0.0 for single slices.
        uneven: whether the gaps differ.
        affine: 16 numbers, row-major 4x4, from (row, column, slice index) of the stored array to RAS in mm
            (nominal for an uneven series).
    """

    series_key: str
    patient_key: str
    kind: str
    slice_spacing: float
    uneven: bool
    affine: tuple[float, ...]


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.bin"


def record_is_whole(record: bytes) -> bool:
    """Whether a series record is complete: its own CRC-32 fits (a record of zeros is not)."""
    crc_at = SERIES_DTYPE.fields["crc"][1] if SERIES_DTYPE.fields else 0
    stored = int.from_bytes(record[crc_at : crc_at + 4], "little")
    return len(record) == SERIES_DTYPE.itemsize and any(record) and zlib.crc32(record[:crc_at]) == stored


def count_committed(path: Path) -> int:
    """Number of series whose record was written completely; what a killed writer left behind it is not counted."""
    series_file = path / SERIES_FILE
    count = series_file.stat().st_size // SERIES_DTYPE.itemsize
    with series_file.open("rb") as file:
        while count:
            file.seek((count - 1) * SERIES_DTYPE.itemsize)
            if record_is_whole(file.read(SERIES_DTYPE.itemsize)):
                break
            logger.warning("%s: the last series record is incomplete, as a crash leaves it, and is left out", path)
            count -= 1
    return count


def check_header(path: Path) -> dict[str, Any]:
    """Read ``store.json``.

    Raises:
        DataError: If the folder is no slice store, or one of a newer format.
    """
    try:
        header = json.loads((path / HEADER_FILE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a slice store ({HEADER_FILE} cannot be read): give the folder that `ssl-transfer ingest` wrote"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT_NAME:
        raise DataError(f"{path / HEADER_FILE} does not describe a slice store: give the folder that ingest wrote")
    if header.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{path} has slice store format {header.get('version')} and this version reads {FORMAT_VERSION}: "
            "ingest the scans again or use the version that wrote it"
        )
    return header


def map_records(file: Path, dtype: np.dtype, count: int) -> np.ndarray:
    """Map ``count`` records read-only.

    Raises:
        DataError: If the file is shorter than that.
    """
    size = file.stat().st_size if file.exists() else 0
    if size < count * dtype.itemsize:
        raise DataError(
            f"{file} has {size} bytes where {count * dtype.itemsize} were committed: it was damaged, restore or ingest again"
        )
    return np.memmap(file, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)


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

    Raises:
        DataError: If the folder is no readable slice store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_header(self.path)
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
            (rows, columns) int16 in HU, the caller's own.

        Raises:
            DataError: If the stored bytes are damaged; names the shard.
        """
        i = self._check(i)
        rows, columns, shard, offset, nbytes, crc = _IMAGE_FIELDS.unpack_from(self._bytes, i * SLICE_DTYPE.itemsize)
        frame = self._frame(shard, offset, nbytes, crc, f"slice {i}")
        try:
            return decode_image(frame, rows, columns)
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
