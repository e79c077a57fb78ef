"""Photographs of one scene, found by perceptual hash, where no patient or sequence is known (as in Kvasir-SEG)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from monai_ssl_transfer.data.endoscopy.borders import field_of_view
from monai_ssl_transfer.data.endoscopy.frames import read_frame
from monai_ssl_transfer.data.worker_pool import in_order, worker_pool

HASH_BITS = 256
DUPLICATE_THRESHOLD = 32
"""Bits of 256 in which the hashes of two photographs of one scene may differ.

Chosen on 806 frames of Kvasir-SEG by looking at pairs as pictures. Of their 324,415 pairs eleven differ in at most 20
bits, and each shows one scene: saved twice, with and without the scope guide, or a moment apart. One more pair of one
scene differs in 44 bits, and from 52 bits on the pairs are strangers. A finding that was photographed from another
side has nothing in common with its first picture for such a hash: only the patient's identity keeps those together.
"""

_SIDE = 16
# Share of the field of view that is hashed: its corners are black, cut in the same octagon in every photograph.
_CENTRE = 0.7
# Rows of the distance table at a time: 512 x 10,000 distances take 20 MB.
_BLOCK = 512
# A file takes 5 ms to read and hash, a process seconds to start.
_FILES_PER_PROCESS = 1000
_FILES_AT_A_TIME = 16


def difference_hash(frame: np.ndarray) -> int:
    """Hash a frame so that pictures that look alike differ in few bits.

    The centre of the field of view is shrunk to 16 x 17 grey values, and each bit says whether a value is larger than
    the one to its left (N. Krawetz, "Kind of like that", 2013, with 16 instead of 8 rows: on 64 bits strangers come as
    near as the same scene).

    Args:
        frame: (rows, columns, 3) uint8.

    Returns:
        Number of 256 bits.
    """
    top, bottom, left, right = field_of_view(frame)
    down, along = int((bottom - top) * (1 - _CENTRE) / 2), int((right - left) * (1 - _CENTRE) / 2)
    centre = frame[top + down : bottom - down, left + along : right - along]
    grey = cv2.cvtColor(np.ascontiguousarray(centre), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def hamming(one: int, other: int) -> int:
    """Number of bits in which two hashes differ."""
    return (one ^ other).bit_count()


def near_duplicate_groups(
    frames: Sequence[str | Path | int], threshold: int = DUPLICATE_THRESHOLD, workers: int | None = None
) -> list[int]:
    """Group photographs so that any two within the threshold are in one group, directly or by a chain of others.

    Args:
        frames: paths of photographs, or their hashes.
        threshold: bits of 256 in which two photographs of one scene may differ; 0 groups equal hashes only.
        workers: processes that hash files; None for one per thousand files and at most one per core.

    Returns:
        Number of the group of each photograph: 0, 1, ... in order of first appearance.

    Raises:
        DataError: a photograph cannot be read (names it), or a process died.
    """
    hashes = [frame for frame in frames if isinstance(frame, int)]
    if len(hashes) < len(frames):
        hashes = _hashes([frame if isinstance(frame, int) else Path(frame) for frame in frames], workers)
    return _joined(hashes, threshold)


def _hash_all(frames: list[int | Path]) -> list[int]:
    return [frame if isinstance(frame, int) else difference_hash(read_frame(frame)) for frame in frames]


def _hashes(frames: list[int | Path], workers: int | None) -> list[int]:
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(cores, len(frames) // _FILES_PER_PROCESS)
    parts = ((frames[first : first + _FILES_AT_A_TIME],) for first in range(0, len(frames), _FILES_AT_A_TIME))
    with worker_pool(workers, remedy="run the same command again on a machine with more memory") as pool:
        return [found for part in in_order(pool, _hash_all, parts, 2 * workers) for found in part]


def _joined(hashes: Sequence[int], threshold: int) -> list[int]:
    """Groups by union of all pairs within the threshold."""
    bits = np.frombuffer(b"".join(h.to_bytes(HASH_BITS // 8, "big") for h in hashes), dtype=np.uint8)
    signs = np.unpackbits(bits).reshape(len(hashes), HASH_BITS).astype(np.float32) * 2 - 1
    group = np.arange(len(hashes))
    for first in range(0, len(hashes), _BLOCK):
        # The product of two hashes as +1 and -1 is the number of equal bits less that of different ones.
        alike = signs[first : first + _BLOCK] @ signs[first:].T >= HASH_BITS - 2 * threshold
        for row in alike:
            joined = np.unique(group[first:][row])
            if len(joined) > 1:
                group[np.isin(group, joined)] = joined[0]
    # A group bears the number of its first photograph, so the order of the numbers is that of first appearance.
    return [int(number) for number in np.unique(group, return_inverse=True)[1]]
