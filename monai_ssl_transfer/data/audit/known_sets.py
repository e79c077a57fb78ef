"""Public data sets that share patients, by the names of their files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from monai_ssl_transfer.data.audit.findings import Finding, finding, listed
from monai_ssl_transfer.data.audit.items import Item
from monai_ssl_transfer.data.audit.records import Record

_LITS = re.compile(r"(?:^|/)volume-(\d+)\.nii")
_MSD = re.compile(r"(?:^|/)liver_(\d+)\.nii")
_IRCAD = re.compile(r"ircad", re.IGNORECASE)


def liver_number(item: Item) -> int | None:
    """Number of a case of LiTS or MSD Task03, whose numbers name the same patients; None for another file."""
    match = _LITS.search(item.shown) or _MSD.search(item.shown)
    return int(match[1]) if match else None


def known_overlaps(records: Sequence[Record]) -> Iterator[Finding]:
    """LiTS against MSD Task03, and either against 3D-IRCADb-01.

    LiTS's 131 training cases are those of MSD Task03 under the same numbers, and its cases 28 to 47 are the twenty
    patients of 3D-IRCADb-01.
    """
    own, other = [r for r in records if not r.other], [r for r in records if r.other]
    for one_side, other_side in ((own, other), (other, own)):
        lits = {int(m[1]): r for r in one_side if (m := _LITS.search(r.item.shown))}
        msd = {int(m[1]): r for r in other_side if (m := _MSD.search(r.item.shown))}
        both = sorted(set(lits) & set(msd))
        if both:
            telling = f"LiTS volumes {listed([str(k) for k in both])} are MSD Task03's of the same numbers"
            yield finding("known-overlap", telling, [r.shown for k in both for r in (lits[k], msd[k])])
        numbered = [(liver_number(r.item), r) for r in one_side]
        named = {k: r for k, r in numbered if k is not None and k in range(28, 48)}
        ircad = [r for r in other_side if _IRCAD.search(r.item.image)]
        if named and ircad:
            telling = f"LiTS volumes {listed([str(k) for k in sorted(named)])} are patients of 3D-IRCADb-01"
            yield finding("known-overlap", telling, [r.shown for _, r in sorted(named.items())])
