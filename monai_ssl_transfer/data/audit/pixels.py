"""Pixels of what a finding shows: a photograph, or the slices of a scan, read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.data.audit.findings import Picture
from monai_ssl_transfer.data.audit.fingerprint import slice_fingerprints
from monai_ssl_transfer.data.ct.dicom_header import read_header
from monai_ssl_transfer.data.ct.dicom_pixels import read_hu
from monai_ssl_transfer.data.ct.nifti import open_nifti
from monai_ssl_transfer.data.ct.volume import to_hu
from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES, read_frame
from monai_ssl_transfer.data.store import SliceStore

_MOST_SLICES = 1500


@dataclass(frozen=True)
class Slices:
    """Slices of a scan.

    Args:
        count: how many.
        read: gives slice k as (rows, columns) HU, canonical.
        spacing: row and column spacing in mm.
        masks: (slices, rows, columns), or None.
    """

    count: int
    read: Callable[[int], np.ndarray]
    spacing: tuple[float, float]
    masks: np.ndarray | None = None

    @property
    def telling(self) -> int:
        """The slice that shows most of the mask, else the middle one."""
        if self.masks is None or not self.masks.any():
            return self.count // 2
        return int(np.argmax([np.count_nonzero(plane) for plane in self.masks]))


def is_photograph(picture: Picture) -> bool:
    """Whether it is a photograph and no scan."""
    if picture.series >= 0:
        return SliceStore(picture.image).pixels == "rgb"
    return not picture.files and picture.image.lower().endswith(FRAME_SUFFIXES)


def photograph_of(picture: Picture) -> tuple[np.ndarray, np.ndarray | None]:
    """(rows, columns, 3) uint8 and the mask (rows, columns) bool, if there is one."""
    if picture.series < 0:
        return read_frame(picture.image), read_frame(picture.label).max(axis=2) > 127 if picture.label else None
    store = SliceStore(picture.image)
    row = picture.row if picture.row >= 0 else store.series_range(picture.series).start
    mask = store.read_mask(row)
    return store.read(row), None if mask is None else mask > 0


def slices_of(picture: Picture) -> Slices:
    """Slices of a scan, each read when it is asked for."""
    if picture.series >= 0:
        store = SliceStore(picture.image)
        own = store.series_range(picture.series)
        record = store.index[own.start]
        spacing = (float(record["row_spacing"]), float(record["column_spacing"]))
        return Slices(len(own), lambda k: store.read(own[k]), spacing)
    if picture.files:
        files = picture.files
        header = read_header(files[len(files) // 2])[0][0]
        return Slices(len(files), lambda k: _dicom_slice(files[k]), header.plane.canonical()[0].spacing)
    stack = open_nifti(picture.image)
    masks = None
    if picture.label and picture.label != picture.image:
        label = open_nifti(picture.label).stored
        masks = label if label.shape == stack.stored.shape else None
    return Slices(
        len(stack.stored),
        lambda k: to_hu(stack.stored[k], stack.slope, stack.intercept),
        stack.planes[0].spacing,
        masks,
    )


def _dicom_slice(file: str) -> np.ndarray:
    header = read_header(file)[0][0]
    return header.plane.canonical()[1].apply(read_hu(header))


def middle_image(picture: Picture) -> np.ndarray:
    """(rows, columns, 3) uint8 of a photograph, or (rows, columns) HU of the middle slice of a scan."""
    if is_photograph(picture):
        return photograph_of(picture)[0]
    slices = slices_of(picture)
    return slices.read(slices.count // 2)


def slices_that_match(one: Slices, other: Slices) -> tuple[int, int]:
    """Numbers of two slices that show the same, of two scans that share voxels.

    The middle of the shorter scan is looked for in the longer one; the middles of both where nothing matches.
    """
    if one.count > other.count:
        second, first = slices_that_match(other, one)
        return first, second
    for place in _outwards(one.count):
        wanted = slice_fingerprints(np.ascontiguousarray(one.read(place)))
        if len(wanted) < 3:
            continue
        found = _best(wanted, other)
        return (place, found) if found >= 0 else (one.count // 2, other.count // 2)
    return one.count // 2, other.count // 2


def _outwards(count: int) -> Sequence[int]:
    return sorted(range(count), key=lambda k: abs(k - count // 2))[:9]


def _best(wanted: np.ndarray, scan: Slices) -> int:
    best, found = 0, -1
    for k in range(min(scan.count, _MOST_SLICES)):
        common = len(np.intersect1d(wanted, slice_fingerprints(np.ascontiguousarray(scan.read(k)))))
        if common > best:
            best, found = common, k
        if common >= 0.9 * len(wanted):
            break
    return found
