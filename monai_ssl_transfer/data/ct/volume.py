"""CT volumes in canonical order, and the geometry that brings a plane there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AIR = -1024
MAXIMUM_TILT_DEGREES = 30.0
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class CtVolume:
    """A CT scan in HU: rows run to posterior, columns to the patient's left, slices from inferior to superior.

    Args:
        hu: (slices, rows, columns) int16 HU; nothing below -1024.
        positions: (slices,) float64, mm along the normal of the slices, ascending; the true ones, also where gaps are
            uneven.
        spacing: row and column spacing in mm.
        affine: (4, 4), maps (row, column, slice number) to RAS mm; nominal for uneven series.
        slice_spacing: median gap in mm, 0.0 for a single slice.
        uneven: whether the gaps differ.
        notes: sentences about what is unusual (tilt, gaps, identity affine).
    """

    hu: np.ndarray
    positions: np.ndarray
    spacing: tuple[float, float]
    affine: np.ndarray
    slice_spacing: float
    uneven: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class InPlane:
    """How the pixels of a plane are brought to canonical order; the transposition comes first."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """A canonical view of ``(..., rows, columns)`` pixels, without copying."""
        pixels = np.swapaxes(pixels, -1, -2) if self.transpose else pixels
        pixels = pixels[..., ::-1, :] if self.flip_rows else pixels
        return pixels[..., ::-1] if self.flip_columns else pixels


@dataclass(frozen=True)
class Plane:
    """Where a slice lies in the patient.

    Args:
        origin: (3,) centre of pixel (0, 0) in mm, DICOM's LPS axes.
        row_step: (3,) mm from a pixel to the one in the next row.
        column_step: (3,) mm from a pixel to the one in the next column.
        shape: rows, columns.
    """

    origin: np.ndarray
    row_step: np.ndarray
    column_step: np.ndarray
    shape: tuple[int, int]

    @property
    def spacing(self) -> tuple[float, float]:
        """Row and column spacing in mm."""
        return float(np.linalg.norm(self.row_step)), float(np.linalg.norm(self.column_step))

    @property
    def normal(self) -> np.ndarray:
        """Unit normal; points to superior for a canonical plane."""
        normal = np.cross(self.column_step, self.row_step)
        return normal / np.linalg.norm(normal)

    def canonical(self) -> tuple[Plane, InPlane]:
        """The same plane with rows to posterior and columns to left, and what to do to its pixels."""
        origin, row, column, (rows, columns) = self.origin, self.row_step, self.column_step, self.shape
        transpose = bool(abs(row[0] * column[1]) > abs(row[1] * column[0]))
        if transpose:
            row, column, rows, columns = column, row, columns, rows
        flip_rows, flip_columns = bool(row[1] < 0), bool(column[0] < 0)
        if flip_rows:
            origin, row = origin + row * (rows - 1), -row
        if flip_columns:
            origin, column = origin + column * (columns - 1), -column
        return Plane(origin, row, column, (rows, columns)), InPlane(transpose, flip_rows, flip_columns)

    def tilt_degrees(self) -> float:
        """Angle between this plane and the axial one, 0..90."""
        return _degrees(abs(float(self.normal[2])))


def to_hu(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Stored values to int16 HU: ``slope * stored + intercept``, rounded half to even, clamped to [-1024, 32767].

    Args:
        stored: any shape, integer or finite float.
        slope: RescaleSlope.
        intercept: RescaleIntercept in HU.
    """
    if np.issubdtype(stored.dtype, np.integer) and slope == 1.0 and float(intercept).is_integer():
        values = stored.astype(np.int32) + np.int32(intercept) if intercept else stored
        if values.dtype == np.int16:
            return np.maximum(values, np.int16(AIR))
    else:
        values = np.rint(stored.astype(np.float64) * slope + intercept)
    return np.clip(values, AIR, 32767).astype(np.int16)


def slice_gaps(positions: np.ndarray) -> tuple[float, bool]:
    """Median gap in mm, and whether gaps differ from it by more than 2 % (or 0.05 mm, which headers may round off)."""
    if len(positions) < 2:
        return 0.0, False
    gaps = np.diff(np.asarray(positions, dtype=np.float64))
    median = float(np.median(gaps))
    return median, bool(np.abs(gaps - median).max() > max(0.05, 0.02 * median))


def stack_affine(planes: Sequence[Plane], thickness: float = 1.0) -> np.ndarray:
    """(4, 4) map from (row, column, slice number) to RAS mm for canonical planes in order.

    Args:
        planes: canonical planes from inferior to superior; the mean step from the first to the last is used, so gantry
            tilt is a shear.
        thickness: mm, the step of a single slice.
    """
    first, last = planes[0], planes[-1]
    step = (last.origin - first.origin) / (len(planes) - 1) if len(planes) > 1 else first.normal * thickness
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ np.column_stack([first.row_step, first.column_step, step])
    affine[:3, 3] = _LPS_TO_RAS @ first.origin
    return affine


def geometry_notes(affine: np.ndarray, positions: np.ndarray, shape: tuple[int, int]) -> tuple[str, ...]:
    """Sentences on uneven gaps, sheared stacks (gantry tilt), oblique planes and lost geometry.

    Args:
        affine: (4, 4), (row, column, slice number) to RAS mm, canonical order.
        positions: (slices,) mm along the normal.
        shape: rows and columns of a slice.
    """
    notes = []
    affine = np.asarray(affine, dtype=np.float64)
    row, column, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    normal = np.cross(column, row) / np.linalg.norm(np.cross(column, row))
    if slice_gaps(positions)[1]:
        gaps = np.diff(positions)
        notes.append(f"uneven gaps of {gaps.min():.2f} to {gaps.max():.2f} mm; each slice keeps its true position")
    shear = _degrees(abs(float(step @ normal)) / float(np.linalg.norm(step)))
    off_axial = _degrees(abs(float(normal[2])))
    if len(positions) > 1 and shear > 0.5:
        notes.append(f"gantry tilt of {shear:.1f} degrees; the slices are kept as they were acquired")
    elif off_axial > 0.5:
        notes.append(
            f"planes off axial by an angle of {off_axial:.1f} degrees; the slices are kept as they were acquired"
        )
    identity = np.array([[0, -1, 0, shape[1] - 1], [-1, 0, 0, shape[0] - 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    if np.allclose(affine, identity):
        notes.append(
            "identity affine; spacing and orientation were probably lost (LiTS volumes 28 to 47 are known for it)"
        )
    return tuple(notes)


def _degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(min(1.0, cosine))))
