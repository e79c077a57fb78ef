"""The slice store's frames: how one slice or mask becomes checked, compressed bytes and comes back.

An image frame is an ordinary Blosc2 chunk: byte shuffle, LZ4HC, blocks of 32 KiB split into a plane of high and a plane
of low bytes. The low bytes of a noisy scan hardly shrink and cost most of the time to unpack, so a plane that LZ4 does not
bring below `RAW_ABOVE` of its size is put in raw, which the chunk format provides for. ``docs/slice-store.md`` has the
measurements behind these choices.
"""

from __future__ import annotations

import struct

import blosc2
import numpy as np

BLOCK_BYTES = 1 << 15
RAW_ABOVE = 0.7
_HEADER_BYTES = 32
_weights = np.empty(0, np.uint64)


def _make_weights(count: int) -> np.ndarray:
    """Fixed odd 64-bit numbers (SplitMix64 of the position, Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)


def checksum(frame: bytes | memoryview) -> int:
    """Upper half of the sum of 64-bit words times fixed odd numbers, modulo 2**64.

    A multilinear hash (Lemire and Kaser 2014, doi:10.1093/comjnl/bxt070): it notices every damage but one in 2**31, as a
    CRC-32 does, at a quarter of ``zlib.crc32``'s time.

    Args:
        frame: bytes, a multiple of 8 of them.
    """
    global _weights
    words = np.frombuffer(frame, "<u8")
    if len(words) > len(_weights):
        _weights = _make_weights(max(len(words), 1 << 16))
    return int(words.dot(_weights[: len(words)])) >> 32


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
    if block_bytes != BLOCK_BYTES or len(chunk) <= _HEADER_BYTES + 4 * blocks:
        return chunk  # a tiny or constant slice, which has no such streams
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
