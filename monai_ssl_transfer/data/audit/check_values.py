"""Whether the values of a scan are HU, and whether a photograph shows anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monai_ssl_transfer.data.audit.facts import Values
from monai_ssl_transfer.data.audit.findings import Finding, finding
from monai_ssl_transfer.data.audit.records import Record, photographs_of, scans_of

CLIPPED_SHARE = 0.005
PADDING_SHARE = 0.001
CLIPPED_BELOW = 1500
"""A scan's largest value is met by very few voxels; where many have it and it is below that of bone, it was clipped."""


def hu_range(records: Sequence[Record]) -> Iterator[Finding]:
    """Scans whose values are no HU, or unusual ones."""
    for one, facts in scans_of(records):
        if not one.other and facts.values is not None:
            yield from _one_scan(one, facts.values)


def _one_scan(one: Record, values: Values) -> Iterator[Finding]:
    shown, span = one.shown, f"{values.low:g} to {values.high:g}"
    if values.low == values.high:
        yield finding("damaged", f"{shown}: all its voxels have the value {values.low:g}", [shown])
        return
    if values.low >= 0:
        code = "eight-bit" if values.high <= 255 else "no-intercept"
        yield finding(code, f"{shown} holds values from {span}, so it is not in HU", [shown], pictures=[one.picture])
        return
    if values.high < CLIPPED_BELOW and values.at_high > CLIPPED_SHARE:
        telling = f"{shown} holds values from {span}, and {values.at_high:.1%} of its voxels have the largest"
        yield finding("clipped", telling, [shown], pictures=[one.picture])
    elif values.air == 0:
        telling = f"{shown} holds values from {span} HU: no air and no lung"
        yield finding("no-air", telling, [shown])
    # a few values below -1024 are noise in air
    if values.padding is not None and values.padding[1] > PADDING_SHARE:
        value, share = values.padding
        telling = f"{shown} holds values down to {values.low:g}; {share:.1%} of its voxels are {value:g}"
        yield finding("padding", telling, [shown])
    if values.overshoot > 0:
        telling = f"{shown} holds values up to {values.high:g} HU in {values.overshoot:.3%} of its voxels"
        yield finding("overshoot", telling, [shown])


def blank_photographs(records: Sequence[Record]) -> Iterator[Finding]:
    """Photographs of one colour."""
    for one, facts in photographs_of(records):
        if facts.blank and not one.other:
            yield finding("blank-picture", f"{one.shown} has one colour", [one.shown], pictures=[one.picture])
