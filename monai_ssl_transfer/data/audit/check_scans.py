"""One scan under two names, by its voxels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from monai_ssl_transfer.data.audit.facts import ScanFacts
from monai_ssl_transfer.data.audit.findings import Finding, finding
from monai_ssl_transfer.data.audit.fingerprint import shared_scans
from monai_ssl_transfer.data.audit.records import Record, apart, both_sides, scans_of

_CODES = {"both-sets": "same-scan-in-both-sets", "two-parts": "same-scan-in-two-parts", "": "same-scan"}
_WHOLE = 0.9
_Pair = tuple[int, int]


def same_scans(records: Sequence[Record]) -> Iterator[Finding]:
    """Pairs of scans that share voxels, whatever their names, formats and headers."""
    scans = scans_of(records)
    alike = {(i, k): (s, t) for i, k, s, t in shared_scans([facts.fingerprints for _, facts in scans])}
    # images of few pixels, or without noise, have too few fingerprints: their pixels must be equal
    alike |= dict.fromkeys(_equal(scans), (1.0, 1.0))
    for (first, second), (one_share, other_share) in sorted(alike.items()):
        (one, facts), (other, others) = scans[first], scans[second]
        if one.other and other.other:
            continue
        if facts.pixels == others.pixels:
            telling = "hold the same voxels"
        elif min(one_share, other_share) >= _WHOLE:
            telling = "hold the same voxels, stored in another way"
        else:
            telling = f"share voxels: about {one_share:.0%} of the first and {other_share:.0%} of the second"
        yield finding(
            _CODES[apart(one, other)],
            f"{both_sides(one, other)} {telling}",
            [one.shown, other.shown],
            measure=-max(one_share, other_share),
            pictures=[one.picture, other.picture],
        )


def _equal(scans: Sequence[tuple[Record, ScanFacts]]) -> Iterator[_Pair]:
    """Pairs of equal pixels."""
    places: dict[str, list[int]] = defaultdict(list)
    for number, (_, facts) in enumerate(scans):
        if facts.values is not None and facts.values.low < facts.values.high:
            places[facts.pixels].append(number)
    for found in places.values():
        for place, one in enumerate(found):
            yield from ((one, other) for other in found[place + 1 :])
