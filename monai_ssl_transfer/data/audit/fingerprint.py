"""Fingerprints of CT scans: two scans that share voxels share fingerprints, whatever their headers and formats say.

A scan that is converted, renamed, cropped, cut to some of its slices, mirrored or turned by quarters within its planes,
or stored with a lost affine keeps its HU values. So a sample of pixels is taken by what stands around each (not by
where it lies), and every one is described by numbers that mirroring and turning do not change: its own value and sums
of its neighbours. This is sampling by hash as in scaled MinHash ("FracMinHash", Hera et al. 2023, Genome Research),
with pixels for k-mers: the share of common hashes estimates the share of common voxels, also where one scan is a small
part of the other. Resampled scans share nothing: their values are new.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

MOST_PER_SCAN = 2048
"""Fingerprints that are kept of a scan: its smallest hashes, 16 KB."""
LEAST_SHARED = 8
LEAST_SHARE = 0.15

_RATE_BITS = 11  # one informative pixel of 2,048 is taken
_AIR = -900
_LEAST_CONTRAST = 8  # the Laplacian of a pixel that says more than flat air, water or padding
_MANY = 24  # a hash that so many scans have is of no one scan (a phantom's or a table's edge)
_MIX = tuple(np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def slice_fingerprints(hu: np.ndarray) -> np.ndarray:
    """Hashes of a slice's sampled pixels.

    Args:
        hu: (rows, columns) int16 HU.

    Returns:
        (N,) uint64, N about one in 2,048 of the pixels that are not flat.
    """
    if min(hu.shape) < 5:
        return np.zeros(0, np.uint64)
    v = hu.astype(np.int32)
    centre = v[2:-2, 2:-2]
    sides = v[1:-3, 2:-2] + v[3:-1, 2:-2] + v[2:-2, 1:-3] + v[2:-2, 3:-1]
    corners = v[1:-3, 1:-3] + v[1:-3, 3:-1] + v[3:-1, 1:-3] + v[3:-1, 3:-1]
    mixed = centre.astype(np.uint32) * np.uint32(0x9E3779B1)
    mixed += sides.astype(np.uint32) * np.uint32(0x85EBCA77)
    mixed += corners.astype(np.uint32) * np.uint32(0xC2B2AE3D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    rows, columns = np.nonzero(mixed >> np.uint32(32 - _RATE_BITS) == 0)
    telling = (np.abs(4 * centre[rows, columns] - sides[rows, columns]) >= _LEAST_CONTRAST) & (
        centre[rows, columns] > _AIR
    )
    rows, columns = rows[telling] + 2, columns[telling] + 2
    far = v[rows - 2, columns] + v[rows + 2, columns] + v[rows, columns - 2] + v[rows, columns + 2]
    squares = sum(v[rows + r, columns + c].astype(np.int64) ** 2 for r in (-2, -1, 0, 1, 2) for c in (-2, -1, 0, 1, 2))
    return _hashed(
        centre[rows - 2, columns - 2], sides[rows - 2, columns - 2], corners[rows - 2, columns - 2], far, squares
    )


def _hashed(*columns: np.ndarray | int) -> np.ndarray:
    value = np.zeros(len(np.atleast_1d(columns[0])), np.uint64)
    for column in columns:
        value = (value ^ np.asarray(column, dtype=np.int64).astype(np.uint64)) * _MIX[0]
        value = (value ^ (value >> np.uint64(30))) * _MIX[1]
        value = (value ^ (value >> np.uint64(27))) * _MIX[2]
        value ^= value >> np.uint64(31)
    return value


def smallest(hashes: Sequence[np.ndarray]) -> np.ndarray:
    """The smallest distinct hashes of a scan's slices, ascending, at most `MOST_PER_SCAN`."""
    found = np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)
    return found[:MOST_PER_SCAN]


def shared_scans(scans: Sequence[np.ndarray]) -> list[tuple[int, int, float, float]]:
    """Pairs of scans that share voxels.

    Args:
        scans: what `smallest` gave of each.

    Returns:
        Numbers of two scans, the smaller first, and the share of the voxels of each that lies in the other.
    """
    if not scans:
        return []
    hashes = np.concatenate(scans)
    owners = np.repeat(np.arange(len(scans)), [len(one) for one in scans])
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]]) if len(hashes) else np.zeros(0, int)
    lengths = np.diff(np.r_[starts, len(hashes)])
    common: dict[tuple[int, int], int] = defaultdict(int)
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        if length <= _MANY:
            among = owners[start : start + length].tolist()
            for place, one in enumerate(among):
                for other in among[place + 1 :]:
                    common[one, other] += 1
    found = []
    for (one, other), count in sorted(common.items()):
        # hashes above the smaller of both limits were kept of one scan alone
        limit = min(_limit(scans[one]), _limit(scans[other]))
        sizes = [int(np.searchsorted(scans[k], limit, side="right")) for k in (one, other)]
        shares = [count / max(1, size) for size in sizes]
        if count >= LEAST_SHARED and max(shares) >= LEAST_SHARE:
            found.append((one, other, min(1.0, shares[0]), min(1.0, shares[1])))
    return found


def _limit(hashes: np.ndarray) -> np.uint64:
    return hashes[-1] if len(hashes) >= MOST_PER_SCAN else np.uint64(2**64 - 1)
