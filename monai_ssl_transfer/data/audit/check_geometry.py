"""Spacing, gaps, doubled slices and orientation of scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from monai_ssl_transfer.data.audit.facts import ScanFacts
from monai_ssl_transfer.data.audit.findings import Finding, finding, listed
from monai_ssl_transfer.data.audit.known_sets import liver_number
from monai_ssl_transfer.data.audit.records import Record, scans_of
from monai_ssl_transfer.data.ct.volume import slice_gaps

PIXEL_MM = (0.2, 5.0)
LARGEST_SLICE_MM = 10.0
FEWEST_SLICES = 5
LEAST_TILT = 0.5
OUTLIER_SHARE = 0.1
"""An orientation is an outlier when at most so many of at least ten scans have it, and most others have one."""
_MAJORITY, _FEWEST_SCANS = 0.8, 10
IRCAD = range(28, 48)


def scan_geometry(records: Sequence[Record]) -> Iterator[Finding]:
    """Every scan by itself."""
    for one, facts in scans_of(records):
        if not one.other:
            yield from _affine(one, facts)
            yield from _slices(one, facts)


def _affine(one: Record, facts: ScanFacts) -> Iterator[Finding]:
    shown = one.shown
    number = liver_number(one.item)
    millimetre = bool(np.allclose(facts.spacing, 1.0))
    if number in IRCAD and millimetre:
        telling = f"{shown} is LiTS {number}, one of the 3D-IRCADb-01 patients, and has lost its spacing (1 mm voxels)"
        yield finding("lits-28-47", telling, [shown])
    elif facts.identity:
        yield finding("identity-affine", f"{shown} has an identity affine: spacing and orientation are lost", [shown])
    low, high = PIXEL_MM
    if not all(low <= value <= high for value in facts.spacing[:2]) or facts.spacing[2] > LARGEST_SLICE_MM:
        voxel = " x ".join(f"{value:.3g}" for value in facts.spacing)
        yield finding("spacing", f"{shown} has voxels of {voxel} mm (row x column x slice)", [shown])
    if facts.tilt > LEAST_TILT:
        yield finding("gantry-tilt", f"{shown} is tilted by {facts.tilt:.1f} degrees", [shown], measure=-facts.tilt)
    if facts.shape[0] < FEWEST_SLICES:
        count = f"{facts.shape[0]} slice{'' if facts.shape[0] == 1 else 's'}"
        yield finding("few-slices", f"{shown} has {count}", [shown])


def _slices(one: Record, facts: ScanFacts) -> Iterator[Finding]:
    shown = one.shown
    gap, uneven = slice_gaps(facts.positions)
    gaps = np.diff(facts.positions)
    if uneven and gap > 0:
        # a gap of whole slice distances in a series that is even else is a loss, not a way of scanning
        multiples = gaps / gap
        whole = (multiples > 1.5) & (np.abs(multiples - np.rint(multiples)) < 0.05)
        even = np.abs(gaps - gap) <= max(0.05, 0.02 * gap)
        lost = int(np.rint(multiples[whole] - 1).sum())
        if (whole | even).all() and lost <= len(gaps):
            where = ", ".join(f"{facts.positions[k]:.1f} mm" for k in np.flatnonzero(whole)[:4])
            telling = f"{shown} lacks {lost} slices (after {where}; slices are {gap:.2f} mm apart)"
            yield finding("missing-slices", telling, [shown], measure=-lost)
        else:
            telling = f"{shown} has slices {gaps.min():.2f} to {gaps.max():.2f} mm apart"
            yield finding("uneven-spacing", telling, [shown])
    if facts.doubled:
        telling = f"{shown}: {_numbered(facts.doubled)} equal to the slice before"
        yield finding("doubled-slices", telling, [shown], measure=-len(facts.doubled))
    if facts.blank:
        telling = f"{shown}: {_numbered(facts.blank)} of one value, between others that show something"
        yield finding("blank-slices", telling, [shown], measure=-len(facts.blank))


def _numbered(numbers: Sequence[int]) -> str:
    """Slices counted from 1, from inferior to superior."""
    names = listed([str(number + 1) for number in numbers])
    return f"slice {names} of the stack is" if len(numbers) == 1 else f"slices {names} of the stack are"


def orientations(records: Sequence[Record]) -> Iterator[Finding]:
    """Scans that are stored in another orientation than the rest of their set."""
    scans = [(one, facts) for one, facts in scans_of(records) if facts.orientation and not one.other]
    found = Counter(facts.orientation for _, facts in scans)
    if len(found) < 2:
        return
    usual, count = found.most_common(1)[0]
    if len(scans) >= _FEWEST_SCANS and count >= _MAJORITY * len(scans):
        for one, facts in scans:
            if found[facts.orientation] <= OUTLIER_SHARE * len(scans):
                telling = f"{one.shown} is stored as {facts.orientation}, {count} of {len(scans)} scans as {usual}"
                yield finding("orientation-outlier", telling, [one.shown], pictures=[one.picture])
        return
    kinds = ", ".join(f"{number} as {code}" for code, number in sorted(found.items()))
    yield finding("mixed-orientations", f"{len(scans)} scans are stored in several orientations: {kinds}", [])
