"""The same photograph, or the same scene, under two names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from monai_ssl_transfer.data.audit.findings import Finding, finding, listed
from monai_ssl_transfer.data.audit.records import Record, apart, both_sides, photographs_of
from monai_ssl_transfer.data.endoscopy.near_duplicates import DUPLICATE_THRESHOLD, HASH_BITS

CERTAIN_BITS = 20
"""Up to so many of 256 bits every pair of Kvasir-SEG is one scene (see `near_duplicates`); beyond, it is a warning."""
_TELLING = (24, HASH_BITS - 24)  # bits set in the hash of a picture that shows something
_BLOCK, _COLUMNS = 512, 16384  # distances at a time: 34 MB
_PICTURES = 4


def same_photographs(records: Sequence[Record]) -> Iterator[Finding]:
    """Photographs of the same pixels."""
    by_pixels: dict[str, list[Record]] = defaultdict(list)
    for one, facts in photographs_of(records):
        if not facts.blank:
            by_pixels[facts.pixels].append(one)
    for copies in by_pixels.values():
        own = [one for one in copies if not one.other]
        if not own or len(copies) < 2:
            continue
        kinds = {apart(one, other) for place, one in enumerate(copies) for other in copies[place + 1 :]}
        code = "same-picture"
        if "both-sets" in kinds:
            code = "same-picture-in-both-sets"
        elif "two-parts" in kinds:
            code = "same-picture-in-two-parts"
        shown = [f"{one.shown} ({one.part})" if one.part else one.shown for one in copies]
        yield finding(
            code,
            f"{listed(shown)} hold the same pixels",
            [one.shown for one in copies],
            pictures=[one.picture for one in copies[:_PICTURES]],
        )
        classes = sorted({one.item.finding for one in own if one.item.finding})
        if len(classes) > 1:
            telling = f"{listed([one.shown for one in own])} hold the same pixels, in the folders {listed(classes)}"
            yield finding("same-picture-in-two-classes", telling, [one.shown for one in own])


def near_duplicates(records: Sequence[Record]) -> Iterator[Finding]:
    """Photographs of one scene by their difference hashes: across parts and sets by pair, else by group."""
    shown = [
        (one, facts)
        for one, facts in photographs_of(records)
        if not facts.blank and _TELLING[0] <= facts.hash.bit_count() <= _TELLING[1]
    ]
    alike: list[tuple[Record, Record, int]] = []
    nearest: dict[int, tuple[int, int]] = {}
    own = sum(not one.other for one, _ in shown)  # they come first
    for first, second, bits in close_pairs([facts.hash for _, facts in shown], own):
        (one, facts), (other, others) = shown[first], shown[second]
        if facts.pixels == others.pixels:
            continue
        if not apart(one, other):
            alike.append((one, other, bits))
        elif second not in nearest or bits < nearest[second][0]:
            nearest[second] = (bits, first)
    for second, (bits, first) in nearest.items():
        one, other = shown[first][0], shown[second][0]
        yield finding(
            f"near-duplicate-in-{apart(one, other)}",
            f"{both_sides(one, other)} differ in {bits} of {HASH_BITS} bits",
            [one.shown, other.shown],
            severity="" if bits <= CERTAIN_BITS else "warning",
            measure=bits,
            pictures=[one.picture, other.picture],
        )
    yield from _scenes(alike)


def _scenes(alike: Sequence[tuple[Record, Record, int]]) -> Iterator[Finding]:
    """Groups of photographs of one scene in a set without a split, or in one part of it."""
    scene: dict[int, list[Record]] = {}
    bits: dict[int, int] = {}
    for one, other, differ in alike:
        if one.item.group and one.item.group == other.item.group:
            continue
        merged = {id(r): r for r in [*scene.get(id(one), [one]), *scene.get(id(other), [other])]}
        least = min([differ, *(bits[key] for key in merged if key in bits)])
        members = list(merged.values())
        for key in merged:
            scene[key], bits[key] = members, least
    told: set[int] = set()
    for key, members in scene.items():
        if id(members) in told:
            continue
        told.add(id(members))
        telling = f"{listed([one.shown for one in members])} differ in as few as {bits[key]} of {HASH_BITS} bits"
        yield finding(
            "near-duplicate",
            telling,
            [one.shown for one in members],
            measure=bits[key],
            pictures=[one.picture for one in members[:_PICTURES]],
        )


def close_pairs(
    hashes: Sequence[int], first: int | None = None, threshold: int = DUPLICATE_THRESHOLD
) -> Iterator[tuple[int, int, int]]:
    """Pairs of hashes that differ in few bits.

    Args:
        hashes: of 256 bits.
        first: only pairs with one of so many first hashes; None for all.
        threshold: bits in which they may differ.

    Returns:
        Two numbers, the smaller first, and the bits in which they differ.
    """
    packed = np.frombuffer(b"".join(h.to_bytes(HASH_BITS // 8, "big") for h in hashes), dtype=np.uint8)
    packed = packed.reshape(len(hashes), HASH_BITS // 8)
    for top in range(0, len(hashes) if first is None else first, _BLOCK):
        rows = _signs(packed[top : min(top + _BLOCK, len(hashes) if first is None else first)])
        for left in range(top, len(hashes), _COLUMNS):
            # The product of two hashes as +1 and -1 is the number of equal bits less that of different ones.
            differ = (HASH_BITS - rows @ _signs(packed[left : left + _COLUMNS]).T) / 2
            for row, column in np.argwhere(differ <= threshold):
                if left + column > top + row:
                    yield top + int(row), left + int(column), int(differ[row, column])


def _signs(packed: np.ndarray) -> np.ndarray:
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
