"""The slice store's frames: how one slice or mask becomes checked, compressed bytes and comes back.

An image frame is an ordinary Blosc2 chunk: byte shuffle, LZ4HC, blocks of 32 KiB split into a plane of high and a plane
of low bytes. The low bytes of a noisy scan hardly shrink and cost most of the time to unpack, so a plane that LZ4 does
not bring below `RAW_ABOVE` of its size is put in raw, which the chunk format provides for. ``docs/slice-store.md`` has
the measurements behind these choices.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import blosc2
import numpy as np

from monai_ssl_transfer.errors import DataError

BLOCK_BYTES = 1 << 15
RAW_ABOVE = 0.7
_HEADER_BYTES = 32
_STORED_AS_IT_IS = 0x02  # of the flags in byte 2 of a chunk
_CHECKSUM_ROW = 512


def _odd_numbers(count: int) -> np.ndarray:
    """Fixed odd 64-bit numbers (SplitMix64 of the position, Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)


_WEIGHTS = _odd_numbers(2 * _CHECKSUM_ROW)


def checksum(frame: bytes | memoryview) -> int:
    """32-bit checksum of a frame, at a fifth of the time of ``zlib.crc32``.

    The 64-bit words are summed in 512 columns, and the sums (and the words left over) are hashed with fixed odd
    numbers: the upper half of sum(weight * word) modulo 2**64, a multilinear hash (Lemire and Kaser 2014,
    doi:10.1093/comjnl/bxt070). Changed bits, blanked or replaced blocks and shifted data change it, but for a chance of
    about 2**-32; only an exchange of two 4 KiB blocks of the same frame would not.

    Args:
        frame: bytes, a multiple of 8 of them.
    """
    words = np.frombuffer(frame, "<u8")
    whole = len(words) // _CHECKSUM_ROW * _CHECKSUM_ROW
    columns = words[:whole].reshape(-1, _CHECKSUM_ROW).sum(axis=0)
    rest = _WEIGHTS[_CHECKSUM_ROW : _CHECKSUM_ROW + len(words) - whole]
    total = int(columns.dot(_WEIGHTS[:_CHECKSUM_ROW])) + int(words[whole:].dot(rest))
    return (total & 0xFFFFFFFFFFFFFFFF) >> 32


@dataclass(frozen=True)
class EncodedSlice:
    """A slice or photograph as it goes into a shard, made by `encode_slice` or `store_rgb.encode_frame`.

    Attributes:
        image: frame of the image.
        image_crc: its checksum.
        rows: height in pixels.
        columns: width in pixels.
        position: place along the normal in mm; of a photograph its place in its chunk, of a video's frame its seconds.
        row_spacing: distance of the rows in mm.
        column_spacing: distance of the columns in mm.
        body_part: number of the body part, 255 = unknown.
        label: class of the slice, -1 = none.
        source: salted 64-bit hash of the slice's origin.
        mask: frame of the mask, empty = no mask.
        mask_crc: its checksum.
        pixels: "hu" or "rgb", the kind of store that takes it.
    """

    image: bytes
    image_crc: int
    rows: int
    columns: int
    position: float
    row_spacing: float
    column_spacing: float
    body_part: int
    label: int
    source: int
    mask: bytes = b""
    mask_crc: int = 0
    pixels: str = "hu"


def encode_slice(
    hu: np.ndarray,
    *,
    position: float,
    spacing: tuple[float, float],
    body_part: int = 255,
    label: int = -1,
    source: int = 0,
    mask: np.ndarray | None = None,
) -> EncodedSlice:
    """Compress one slice.

    Args:
        hu: (rows, columns) int16 in HU.
        position: place along the normal in mm.
        spacing: (row, column) spacing in mm.
        body_part: number of the body part, 255 = unknown.
        label: class of the slice, -1 = none.
        source: salted 64-bit hash of where the slice came from.
        mask: (rows, columns) uint8, stored beside the slice.

    Raises:
        DataError: If the array or its mask has another type or shape.
    """
    if hu.ndim != 2 or hu.dtype != np.int16 or not all(0 < size < 1 << 16 for size in hu.shape):
        raise DataError(
            f"a slice must be a (rows, columns) int16 array in HU, not {hu.dtype} {hu.shape}: convert it first"
        )
    frame, mask_frame = encode_image(hu), b""
    if mask is not None:
        if mask.shape != hu.shape or mask.dtype != np.uint8:
            raise DataError(
                f"a mask must be uint8 {hu.shape} like its slice, not {mask.dtype} {mask.shape}: convert it first"
            )
        mask_frame = encode_mask(mask)
    return EncodedSlice(
        image=frame,
        image_crc=checksum(frame),
        rows=hu.shape[0],
        columns=hu.shape[1],
        position=position,
        row_spacing=spacing[0],
        column_spacing=spacing[1],
        body_part=int(body_part),
        label=label,
        source=source,
        mask=mask_frame,
        mask_crc=checksum(mask_frame) if mask_frame else 0,
    )


def encode_image(hu: np.ndarray) -> bytes:
    """Frame of a (rows, columns) int16 slice; a multiple of 8 bytes."""
    hu = np.ascontiguousarray(hu, "<i2")
    chunk = blosc2.compress2(
        hu,
        codec=blosc2.Codec.LZ4HC,
        clevel=5,
        filters=[blosc2.Filter.SHUFFLE],
        filters_meta=[0],
        typesize=2,
        blocksize=BLOCK_BYTES,
        splitmode=blosc2.SplitMode.ALWAYS_SPLIT,
        nthreads=1,
    )
    quick = _padded(_with_raw_planes(chunk, hu))
    return quick if np.array_equal(decode_image(quick, *hu.shape), hu) else _padded(chunk)


def encode_mask(mask: np.ndarray) -> bytes:
    """Frame of a (rows, columns) uint8 mask; a multiple of 8 bytes."""
    return _padded(
        blosc2.compress2(
            np.ascontiguousarray(mask, np.uint8),
            codec=blosc2.Codec.ZSTD,
            clevel=5,
            filters=[blosc2.Filter.NOFILTER],
            filters_meta=[0],
            typesize=1,
            nthreads=1,
        )
    )


def decode_image(frame: bytes | memoryview, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) int16 slice of a frame.

    Raises:
        RuntimeError, ValueError: If the frame is not one of that size.
    """
    return _decode(frame, np.empty((rows, columns), np.int16))


def decode_mask(frame: bytes | memoryview, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) uint8 mask of a frame.

    Raises:
        RuntimeError, ValueError: If the frame is not one of that size.
    """
    return _decode(frame, np.empty((rows, columns), np.uint8))


def _decode(frame: bytes | memoryview, out: np.ndarray) -> np.ndarray:
    # nthreads=1 keeps Blosc2 from starting threads, which would not survive the fork of a data loader's workers.
    blosc2.decompress2(frame, dst=out, nthreads=1)
    return out


def _padded(chunk: bytes) -> bytes:
    return chunk + bytes(-len(chunk) % 8)


def _with_raw_planes(chunk: bytes, hu: np.ndarray) -> bytes:
    """The same Blosc2 chunk with the byte planes that hardly shrank stored raw (a stream as long as its plane)."""
    nbytes, block_bytes, _ = struct.unpack_from("<3i", chunk, 4)
    blocks = -(-nbytes // BLOCK_BYTES)
    if block_bytes != BLOCK_BYTES or chunk[2] & _STORED_AS_IT_IS or len(chunk) <= _HEADER_BYTES + 4 * blocks:
        return chunk  # a tiny, an incompressible or a constant slice, which has no such streams
    pixels = hu.reshape(-1).view(np.uint8)
    starts, streams, position = [], [], _HEADER_BYTES + 4 * blocks
    for block, at in enumerate(struct.unpack_from(f"<{blocks}i", chunk, _HEADER_BYTES)):
        starts.append(position)
        in_block = pixels[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        planes = 2 if len(in_block) == BLOCK_BYTES else 1  # a short last block is not split
        for plane in range(planes):
            (size,) = struct.unpack_from("<i", chunk, at)
            stored = size if size >= 0 else 1  # a negative size is a run of one value, followed by one byte
            stream = chunk[at : at + 4 + stored]
            at += 4 + stored
            if planes == 2 and RAW_ABOVE * BLOCK_BYTES / 2 < size < BLOCK_BYTES // 2:
                stream = struct.pack("<i", BLOCK_BYTES // 2) + in_block[plane::2].tobytes()
            streams.append(stream)
            position += len(stream)
    head = bytearray(chunk[:_HEADER_BYTES])
    struct.pack_into("<i", head, 12, position)
    return bytes(head) + struct.pack(f"<{blocks}i", *starts) + b"".join(streams)
