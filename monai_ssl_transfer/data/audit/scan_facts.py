"""Reading a CT scan and its label once, slice by slice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_ssl_transfer.data.audit.facts import LabelFacts, ScanFacts, Values
from monai_ssl_transfer.data.audit.fingerprint import slice_fingerprints, smallest
from monai_ssl_transfer.data.audit.items import Item
from monai_ssl_transfer.data.audit.label_facts import look_at_label
from monai_ssl_transfer.data.ct.dicom import read_slice, resolve_clashes, series_geometry, spare_copies
from monai_ssl_transfer.data.ct.nifti import NiftiStack, open_nifti
from monai_ssl_transfer.data.ct.volume import stack_affine, to_hu
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError

AIR_BELOW = -300
_OVERSHOOT = 3071
_LOWEST = -1024


class SliceTally:
    """Collects what a scan's slices tell, one after the other."""

    def __init__(self) -> None:
        self.low, self.high, self.voxels = np.inf, -np.inf, 0
        self.doubled: list[int] = []
        self.flat: list[int] = []
        self._at_high = self._air = self._overshoot = 0
        self._padding: dict[float, int] = {}
        self._digest, self._before, self._count = hashlib.blake2b(digest_size=16), b"", 0
        self._fingerprints: list[np.ndarray] = []

    def add(self, stored: np.ndarray, hu: np.ndarray) -> None:
        """Take the next slice.

        Args:
            stored: (rows, columns) in HU, not clamped.
            hu: the same as int16, clamped.
        """
        low, high = float(stored.min()), float(stored.max())
        if high > self.high:
            self.high, self._at_high = high, 0
        self._at_high += int(np.count_nonzero(stored == self.high)) if high == self.high else 0
        self.low = min(self.low, low)
        self.voxels += stored.size
        self._air += int(np.count_nonzero(hu < AIR_BELOW))
        if high > _OVERSHOOT:
            self._overshoot += int(np.count_nonzero(stored > _OVERSHOOT))
        if low < _LOWEST:
            values, counts = np.unique(stored[stored < _LOWEST], return_counts=True)
            most = int(counts.argmax())
            self._padding[float(values[most])] = self._padding.get(float(values[most]), 0) + int(counts[most])
        plain = np.ascontiguousarray(hu)
        digest = hashlib.blake2b(plain.tobytes(), digest_size=16).digest()
        if low == high:
            self.flat.append(self._count)
        elif digest == self._before:
            self.doubled.append(self._count)
        self._digest.update(digest)
        self._before = digest
        self._count += 1
        self._fingerprints.append(slice_fingerprints(plain))
        if len(self._fingerprints) >= 64:
            self._fingerprints = [smallest(self._fingerprints)]

    @property
    def blank(self) -> tuple[int, ...]:
        """Flat slices that have others on both sides."""
        others = sorted(set(range(self._count)) - set(self.flat))
        return tuple(k for k in self.flat if others and others[0] < k < others[-1])

    @property
    def pixels(self) -> str:
        """Hash of all slices."""
        return self._digest.hexdigest()

    @property
    def fingerprints(self) -> np.ndarray:
        """Of all slices."""
        return smallest(self._fingerprints)

    def values(self) -> Values:
        """What the values tell."""
        share = 1 / max(1, self.voxels)
        padding = max(self._padding.items(), key=lambda pair: pair[1]) if self._padding else None
        return Values(
            self.low,
            self.high,
            self._at_high * share,
            self._air * share,
            (padding[0], padding[1] * share) if padding else None,
            self._overshoot * share,
        )


def look_at_scan(item: Item) -> ScanFacts:
    """Read a scan (NIfTI, DICOM series or stored series) and its label."""
    try:
        if item.slices is not None:
            return _dicom(item)
        return _nifti(item) if item.image else ScanFacts(label=look_at_label(item.label, None))
    except RefusedFile as refusal:
        return ScanFacts(problem=(refusal.code, refusal.sentence), label=_lone_label(item))
    except DataError as error:
        return ScanFacts(problem=("damaged", str(error).replace(item.image, "it")), label=_lone_label(item))


def _lone_label(item: Item) -> LabelFacts | None:
    return look_at_label(item.label, None) if item.label else None


def _nifti(item: Item) -> ScanFacts:
    stack = open_nifti(item.image)
    header: Any = nib.load(item.image)
    affine = header.affine
    tally = SliceTally()
    for stored, hu in _slices(stack):
        tally.add(stored, hu)
    canonical = stack_affine(stack.planes)
    shape = tuple(stack.stored.shape)
    positions = stack.positions
    gap = float(np.median(np.diff(positions))) if len(positions) > 1 else 0.0
    return ScanFacts(
        shape=shape,
        spacing=(*stack.planes[0].spacing, gap),
        orientation="".join(str(code) for code in nib.orientations.aff2axcodes(affine)),
        identity=bool(np.allclose(np.abs(affine[:3, :3]), np.eye(3)) and np.allclose(affine[:3, 3], 0)),
        positions=positions,
        tilt=shear_degrees(canonical),
        doubled=tuple(tally.doubled),
        blank=tally.blank,
        values=tally.values(),
        pixels=tally.pixels,
        fingerprints=tally.fingerprints,
        label=look_at_label(item.label, (shape, canonical, stack.planes[0].spacing)) if item.label else None,
    )


def _slices(stack: NiftiStack) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for plane in stack.stored:
        stored = plane if (stack.slope, stack.intercept) == (1.0, 0.0) else plane * stack.slope + stack.intercept
        if not np.isfinite(stored).all():
            raise RefusedFile(stack.path, "not a number", "holds NaN or infinite voxels, replace them by -1024")
        yield stored, to_hu(plane, stack.slope, stack.intercept)


def shear_degrees(affine: np.ndarray) -> float:
    """Angle between the way from slice to slice and the normal of the slices."""
    row, column, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    normal = np.cross(column, row)
    cosine = abs(float(step @ normal)) / float(np.linalg.norm(step) * np.linalg.norm(normal))
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def _dicom(item: Item) -> ScanFacts:
    group = item.slices
    if group is None:
        raise DataError(f"{item.shown} is no DICOM series: list the folder again.")
    groups, refused = resolve_clashes(group) if group.clashes() else ([group], [])
    tally, headers = SliceTally(), []
    for part in groups:
        for files in part.slices:
            read, broken = read_slice(files)
            refused += broken
            if read is not None:
                refused += spare_copies(files, read.header, broken)
                headers.append(read.header)
                tally.add(read.hu, read.hu)
    named = tuple((refusal.path, refusal.code, refusal.sentence) for refusal in refused)
    if not headers:
        path, _, sentence = named[0] if named else (item.image, "", "no slice of it can be read")
        return ScanFacts(problem=("damaged", f"{Path(path).name}: {sentence}"), refused=named)
    if len(groups) > 1:
        sentence = f"its folder holds {len(groups)} acquisitions at the same positions"
        named += ((item.image, "acquisitions", sentence),)
        headers = [h for h in headers if h in {files[0] for files in groups[0].slices}] or headers
    positions, affine = series_geometry(headers)
    plane = headers[0].plane.canonical()[0]
    gap = float(np.median(np.diff(positions))) if len(positions) > 1 else 0.0
    return ScanFacts(
        refused=named,
        shape=(len(headers), *plane.shape),
        spacing=(*plane.spacing, gap),
        positions=positions,
        tilt=shear_degrees(affine) if len(headers) > 1 else 0.0,
        doubled=tuple(tally.doubled),
        blank=tally.blank,
        values=tally.values(),
        pixels=tally.pixels,
        fingerprints=tally.fingerprints,
    )


def look_at_stored_scan(item: Item) -> ScanFacts:
    """Read a series of a slice store."""
    store = SliceStore(item.image)
    entry, own = store.series(item.series), store.series_range(item.series)
    tally, voxels = SliceTally(), 0
    labels: dict[int, int] = {}
    try:
        for number in own:
            hu = store.read(number)
            tally.add(hu, hu)
            mask = store.read_mask(number)
            if mask is not None:
                voxels += mask.size
                for value, count in zip(*np.unique(mask, return_counts=True), strict=True):
                    labels[int(value)] = labels.get(int(value), 0) + int(count)
    except DataError as error:
        return ScanFacts(problem=("damaged", str(error).replace(str(item.image), "the store")))
    first = store.index[own.start]
    positions = store.index["position"][own.start : own.stop].astype(float)
    spacing = (float(first["row_spacing"]), float(first["column_spacing"]), entry.slice_spacing)
    shape = (len(own), int(first["rows"]), int(first["columns"]))
    label = LabelFacts(None, shape, labels={k: n / voxels for k, n in sorted(labels.items())}) if labels else None
    affine = np.reshape(entry.affine, (4, 4))
    return ScanFacts(
        shape=shape,
        spacing=spacing,
        positions=positions,
        tilt=shear_degrees(affine) if len(own) > 1 and affine.any() else 0.0,
        doubled=tuple(tally.doubled),
        blank=tally.blank,
        values=tally.values(),
        pixels=tally.pixels,
        fingerprints=tally.fingerprints,
        label=label,
    )
