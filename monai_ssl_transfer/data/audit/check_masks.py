"""Masks and label maps by their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monai_ssl_transfer.data.audit.facts import LabelFacts, PhotographFacts
from monai_ssl_transfer.data.audit.findings import Finding, finding, listed
from monai_ssl_transfer.data.audit.records import Record

FULL = 0.95
GREY = 5.0
"""Width in pixels of the grey band along the edge from which on a mask was blurred; smooth edges have 1 or 2."""


def mask_values(records: Sequence[Record]) -> Iterator[Finding]:
    """Empty, full, grey and foreign masks; JPEG masks as one finding for the set."""
    jpeg = []
    for one in records:
        label = one.facts.label
        if one.other or label is None or label.problem is not None:
            continue
        shown = one.item.shown_label or one.shown
        if label.jpeg:
            jpeg.append(shown)
        yield from _one_mask(one, label, shown)
    if jpeg:
        yield finding("jpeg-mask", f"{len(jpeg)} masks are JPEG files: {listed(jpeg)}", jpeg)


def _one_mask(one: Record, label: LabelFacts, shown: str) -> Iterator[Finding]:
    pictures = [one.picture]
    if label.bad_values:
        yield finding("mask-values", f"{shown} holds {label.bad_values}, which are no labels", [shown])
        return
    marked = 1 - label.labels.get(0, 0.0)
    foreign = [str(value) for value in label.labels if one.item.allowed is not None and value not in one.item.allowed]
    if foreign and one.item.allowed is not None:
        known = ", ".join(map(str, one.item.allowed))
        telling = f"{shown} holds the label {listed(foreign)}, and the task knows {known}"
        yield finding("unknown-label", telling, [shown], pictures=pictures)
    if marked == 0:
        yield finding("empty-mask", f"{shown} marks nothing", [shown], pictures=pictures)
    elif marked > FULL:
        telling = f"{shown} marks {marked:.1%} of the image"
        yield finding("full-mask", telling, [shown], measure=-marked, pictures=pictures)
    if isinstance(one.facts, PhotographFacts) and label.grey_width > GREY:
        telling = f"{shown}: its edge is a grey band of {label.grey_width:.1f} pixels"
        yield finding("grey-mask", telling, [shown], measure=-label.grey_width, pictures=pictures)
