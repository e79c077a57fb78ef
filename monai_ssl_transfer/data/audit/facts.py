"""What reading an item once tells about it; small, so that facts of very many items fit into memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class LabelFacts:
    """A mask or label map.

    Args:
        problem: code of a check and a sentence, where it cannot be read; None.
        shape: as its image's facts have it.
        spacing: row, column, slice in mm; () for masks of photographs.
        orientation: axis codes as stored; "".
        distance: mm between the corners of image and label, at most; 0.0 where sizes differ.
        labels: label values that occur and the share of the voxels of each.
        bad_values: sentence on values that are no labels; "".
        grey_width: of a mask of a photograph, mean width in pixels of what is neither dark nor bright along its edge.
        jpeg: whether it is a JPEG file.
    """

    problem: tuple[str, str] | None = None
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    distance: float = 0.0
    labels: dict[int, float] = field(default_factory=dict)
    bad_values: str = ""
    grey_width: float = 0.0
    jpeg: bool = False


@dataclass(frozen=True)
class Values:
    """Stored values of a scan as HU, before anything is clamped.

    Args:
        low: smallest.
        high: largest.
        at_high: share of the voxels at the largest value.
        air: share of the voxels below -300 HU.
        padding: value below -1024 that most voxels have, and their share; None.
        overshoot: share of the voxels above 3071 HU.
    """

    low: float
    high: float
    at_high: float = 0.0
    air: float = 0.0
    padding: tuple[float, float] | None = None
    overshoot: float = 0.0


@dataclass(frozen=True)
class ScanFacts:
    """A CT scan.

    Args:
        problem: code of a check and a sentence, where it cannot be read; None.
        refused: path, code and sentence of each file of a DICOM series that was left out.
        shape: slices, rows, columns.
        spacing: row, column, slice in mm.
        orientation: axis codes as stored, such as "LPS"; "" for DICOM and stores.
        identity: whether the affine is the identity (but for signs and a shift).
        positions: of the slices in mm.
        tilt: shear in degrees.
        doubled: numbers of slices that are equal to the one before.
        blank: numbers of one-valued slices between others.
        values: None where it cannot be read.
        pixels: hash of the voxels in canonical order, independent of file and header.
        fingerprints: see `fingerprint`.
        label: None where there is none.
    """

    problem: tuple[str, str] | None = None
    refused: tuple[tuple[str, str, str], ...] = ()
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    orientation: str = ""
    identity: bool = False
    positions: np.ndarray = field(default_factory=lambda: np.zeros(0))
    tilt: float = 0.0
    doubled: tuple[int, ...] = ()
    blank: tuple[int, ...] = ()
    values: Values | None = None
    pixels: str = ""
    fingerprints: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    label: LabelFacts | None = None


@dataclass(frozen=True)
class PhotographFacts:
    """A photograph, or one frame of a store.

    Args:
        problem: code of a check and a sentence, where it cannot be read; None.
        shape: rows, columns.
        blank: whether it has one colour.
        pixels: hash of the upright pixels, independent of the file.
        hash: difference hash of 256 bits.
        label: None where there is none.
        row: number in a slice store; -1.
    """

    problem: tuple[str, str] | None = None
    shape: tuple[int, ...] = ()
    blank: bool = False
    pixels: str = ""
    hash: int = 0
    label: LabelFacts | None = None
    row: int = -1


Facts = ScanFacts | PhotographFacts
