"""One patient, sequence or video in two parts of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from monai_ssl_transfer.data.audit.findings import Finding, finding, listed
from monai_ssl_transfer.data.audit.records import Record


def groups_across_parts(records: Sequence[Record]) -> Iterator[Finding]:
    """Groups with members in several parts of the split."""
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for one in records:
        if not one.other and one.item.group and one.item.part:
            groups[one.item.group][one.item.part].append(one)
    for name, parts in sorted(groups.items()):
        if len(parts) < 2:
            continue
        # a patient's name or number is not repeated: the paths are the user's own
        called = "one DICOM patient" if name.startswith("DICOM patient") else f"the group {name}"
        if all(r.item.series >= 0 for found in parts.values() for r in found):
            called = "one patient of the store"
        sides = "; ".join(f"{part}: {listed([r.shown for r in found], 3)}" for part, found in sorted(parts.items()))
        members = [r for found in parts.values() for r in found]
        yield finding(
            "same-group-in-two-parts", f"{called} lies in {len(parts)} parts ({sides})", [r.shown for r in members]
        )
