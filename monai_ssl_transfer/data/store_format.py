"""The slice store's files and records.

A store is a folder of five kinds of file; nothing in it is parsed when it opens, whatever its size:

* ``store.json``: name and version of the format, and what its pixels are: HU of CT slices, or RGB of photographs;
* ``shard-00000.bin`` ...: one compressed frame per slice (a Blosc2 chunk; a JPEG file for RGB) or mask, one after the
  other;
* ``slices.bin``: one `SLICE_DTYPE` record per slice, memory-mapped;
* ``series.bin``: one `SERIES_DTYPE` record per series, written last, so that a series exists once its record does;
* ``writer.lock``: held by the one process that writes.
"""

from __future__ import annotations

import json
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

FORMAT_NAME = "monai-ssl-transfer slice store"
# By what the pixels are. RGB came later and has a number of its own, so that no older version takes it for HU.
FORMAT_VERSIONS = {"hu": 1, "rgb": 2}
HEADER_FILE = "store.json"
SLICES_FILE = "slices.bin"
SERIES_FILE = "series.bin"
LOCK_FILE = "writer.lock"

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
        ("uneven", "<u8"),
        ("chain", "V16"),  # hash of this record and all before it
        ("slices_crc", "<u4"),  # CRC-32 of its slice records
        ("crc", "<u4"),  # CRC-32 of this record up to here, its last 4 bytes
    ],
    align=True,
)


@dataclass(frozen=True)
class SeriesEntry:
    """What the store keeps of a series.

    Attributes:
        series_key: 32 hexadecimal characters, a salted hash, unique in the store.
        patient_key: 32 hexadecimal characters, a salted hash.
        kind: ``"dicom"`` or ``"nifti"``; ``"frames"`` or ``"video"`` in a store of RGB frames.
        slice_spacing: median gap between neighbouring slices in mm, 0.0 for single slices.
        uneven: whether the gaps differ.
        affine: 16 numbers, row-major 4x4, from (row, column, slice index) of the stored array to RAS in mm
            (nominal for an uneven series); zeros for RGB frames, which have no place in space.
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


def record_crc(record: bytes) -> int:
    """CRC-32 of the part of a series record that comes before its ``crc``."""
    return zlib.crc32(record[: SERIES_DTYPE.itemsize - 4])


def record_is_whole(record: bytes) -> bool:
    """Whether a series record is complete: its own CRC-32 fits (a record of zeros is not)."""
    if len(record) != SERIES_DTYPE.itemsize or not any(record):
        return False
    return int(np.frombuffer(record, SERIES_DTYPE)[0]["crc"]) == record_crc(record)


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

    Returns:
        Its content; ``"pixels"`` is always there ("hu" where the file does not say).

    Raises:
        DataError: If the folder is no slice store, or one of a newer format.
    """
    try:
        header = json.loads((path / HEADER_FILE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a slice store ({HEADER_FILE} cannot be read): give the folder that ingest wrote"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT_NAME:
        raise DataError(f"{path / HEADER_FILE} does not describe a slice store: give the folder that ingest wrote")
    pixels = header.get("pixels", "hu")
    if header.get("version") != FORMAT_VERSIONS.get(pixels):
        raise DataError(
            f"{path} has slice store format {header.get('version')} ({pixels}) and this version reads "
            f"{' and '.join(f'{number} ({kind})' for kind, number in FORMAT_VERSIONS.items())}: "
            "ingest the scans again or use the version that wrote it"
        )
    return {**header, "pixels": pixels}


def map_records(file: Path, dtype: np.dtype, count: int) -> np.ndarray:
    """Map ``count`` records read-only.

    Raises:
        DataError: If the file is shorter than that.
    """
    size = file.stat().st_size if file.exists() else 0
    if size < count * dtype.itemsize:
        raise DataError(
            f"{file} has {size} bytes where {count * dtype.itemsize} were committed: it was damaged, "
            "restore it or ingest again"
        )
    return np.memmap(file, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
