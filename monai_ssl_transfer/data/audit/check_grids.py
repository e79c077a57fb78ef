"""Whether a label lies on the grid of its image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from monai_ssl_transfer.data.audit.facts import LabelFacts, PhotographFacts, ScanFacts
from monai_ssl_transfer.data.audit.findings import Finding, finding
from monai_ssl_transfer.data.audit.records import Record

SPACING_TOLERANCE = 0.01
CORNER_TOLERANCE = 0.5
"""Voxels of the smaller side by which a corner of the label may lie off its image's."""


def label_grids(records: Sequence[Record]) -> Iterator[Finding]:
    """Size, spacing, place and orientation of every label against its image."""
    for one in records:
        label = one.facts.label
        if one.other or label is None or one.facts.problem is not None or label.problem is not None:
            continue
        shown = one.item.shown_label or one.shown
        if isinstance(one.facts, PhotographFacts) and label.shape != one.facts.shape:
            yield _sizes(one, shown, label.shape, one.facts.shape, "pixels (rows x columns)")
        elif isinstance(one.facts, ScanFacts) and one.facts.shape and label.spacing:
            yield from _volume(one, one.facts, label, shown)


def _sizes(one: Record, shown: str, label: Sequence[int], image: Sequence[int], what: str) -> Finding:
    sizes = [" x ".join(map(str, shape)) for shape in (label, image)]
    return finding("shape-mismatch", f"{shown} has {sizes[0]} {what}, {one.shown} has {sizes[1]}", [one.shown, shown])


def _volume(one: Record, facts: ScanFacts, label: LabelFacts, shown: str) -> Iterator[Finding]:
    files = [one.shown, shown]
    if label.shape != facts.shape:
        yield _sizes(one, shown, label.shape, facts.shape, "voxels (slices x rows x columns)")
        return
    spacings = [" x ".join(f"{value:.3g}" for value in spacing) for spacing in (label.spacing, facts.spacing)]
    if not np.allclose(label.spacing, facts.spacing, rtol=SPACING_TOLERANCE):
        telling = f"{shown} has voxels of {spacings[0]} mm, {one.shown} of {spacings[1]} mm (row x column x slice)"
        yield finding("spacing-mismatch", telling, files)
    elif label.distance > CORNER_TOLERANCE * min(value for value in facts.spacing if value > 0):
        telling = f"{shown} lies up to {label.distance:.1f} mm away from {one.shown}"
        if label.orientation != facts.orientation:
            telling += f" (stored as {label.orientation} and {facts.orientation})"
        yield finding("position-mismatch", telling, files, measure=-label.distance, pictures=[one.picture])
    elif label.orientation != facts.orientation:
        telling = f"{shown} is stored as {label.orientation}, {one.shown} as {facts.orientation}"
        yield finding("orientation-mismatch", telling, files)
