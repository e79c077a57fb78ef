"""Reading CT volumes and label maps from NIfTI in canonical order."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from monai_ssl_transfer.data.ct.volume import (
    MAXIMUM_TILT_DEGREES,
    CtVolume,
    Plane,
    geometry_notes,
    slice_gaps,
    stack_affine,
    to_hu,
)
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.errors import DataError

_LABEL_NAME = re.compile(
    r"(?<![a-z])(?:seg|segm|segmentation|segmentations|label|labels|labelstr|labelsts|mask|masks|roi|gt|livermask|lesionmask)(?![a-z])"
)


@dataclass(frozen=True)
class NiftiStack:
    """A NIfTI file as a stack of canonical planes; pixels stay as stored until they are asked for.

    Args:
        path: the file.
        stored: (slices, rows, columns) view of the stored values, canonical order.
        slope: of the header's scaling.
        intercept: of the header's scaling.
        planes: one per slice.
    """

    path: Path
    stored: np.ndarray
    slope: float
    intercept: float
    planes: tuple[Plane, ...]

    def hu(self) -> Iterator[np.ndarray]:
        """Slices in order, (rows, columns) int16 HU each."""
        for plane in self.stored:
            yield np.ascontiguousarray(to_hu(plane, self.slope, self.intercept))

    @property
    def positions(self) -> np.ndarray:
        """(slices,) float64, mm along the normal."""
        normal = self.planes[0].normal
        return np.array([float(plane.origin @ normal) for plane in self.planes])


def read_nifti_ct(path: str | Path, volume: int | None = None) -> CtVolume:
    """Read a CT volume from ``.nii`` or ``.nii.gz``.

    Float voxels are rounded half to even; values are clamped to [-1024, 32767] HU.

    Args:
        path: the file.
        volume: which volume of a four-dimensional file; None where the file has one.

    Raises:
        DataError: the file is damaged, not three-dimensional, not axial within 30 degrees, a label map, or not in HU.
    """
    stack = open_nifti(path, volume)
    check_hounsfield(stack)
    gap, uneven = slice_gaps(stack.positions)
    affine = stack_affine(stack.planes)
    notes = geometry_notes(affine, stack.positions, stack.planes[0].shape)
    return CtVolume(np.stack(list(stack.hu())), stack.positions, stack.planes[0].spacing, affine, gap, uneven, notes)


def read_nifti_labels(path: str | Path, like: CtVolume | str | Path) -> np.ndarray:
    """Read a label map in the order of its image.

    Args:
        path: ``.nii`` or ``.nii.gz`` with integers 0..255.
        like: the image as read, or its file.

    Returns:
        (slices, rows, columns) uint8, canonical order.

    Raises:
        DataError: shape or position differ from the image's, or values are no labels.
    """
    stack = open_nifti(path)
    name = "its image" if isinstance(like, CtVolume) else str(like)
    if isinstance(like, CtVolume):
        shape, affine = like.hu.shape, like.affine
    else:
        image = open_nifti(like)
        shape, affine = image.stored.shape, stack_affine(image.planes)
    if stack.stored.shape != shape:
        raise DataError(
            f"{path} has {_size(stack.stored.shape)} voxels (slices x rows x columns) but {name} has {_size(shape)}, "
            "pair the label map with the image that it was drawn on"
        )
    corners = np.array(
        [[r, c, z, 1] for r in (0, shape[1] - 1) for c in (0, shape[2] - 1) for z in (0, shape[0] - 1)], dtype=float
    )
    distance = float(np.linalg.norm((corners @ (stack_affine(stack.planes) - affine).T)[:, :3], axis=1).max())
    if distance > 0.5 * min(stack.planes[0].spacing):
        raise DataError(
            f"{path} lies up to {distance:.1f} mm away from {name}, "
            "use the image that it was drawn on or mend its affine"
        )
    values = (
        np.rint(stack.stored * stack.slope + stack.intercept)
        if (stack.slope, stack.intercept) != (1.0, 0.0)
        else stack.stored
    )
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255 or np.any(values != np.rint(values)):
        raise DataError(f"{path} holds values that are no labels 0 to 255, give the label map and not an image")
    return np.ascontiguousarray(values.astype(np.uint8))


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def open_nifti(path: str | Path, volume: int | None = None) -> NiftiStack:
    """Open a NIfTI file as canonical planes; checks its geometry, not its values.

    Args:
        path: the file.
        volume: which volume of a four-dimensional file; None where the file has one.
    """
    path = Path(path)
    stored, image = _load(path)
    affine = image.affine
    volumes = stored.shape[3] if stored.ndim == 4 else 1
    if volume is not None and volume >= volumes:
        raise RefusedFile(path, "modality missing", f"has {volumes} volume(s) and lacks number {volume}, choose others")
    if stored.ndim == 4 and (volume is not None or volumes == 1):
        stored = stored[..., volume or 0]
    if stored.ndim != 3 or 0 in stored.shape:
        raise RefusedFile(
            path, "not three-dimensional", f"has {stored.ndim} dimensions, split it into one file per volume"
        )
    if stored.dtype.fields is not None or np.iscomplexobj(stored):
        raise RefusedFile(path, "colour pixels", "has colour or complex voxels, not one HU value per voxel")
    _check_affine(path, affine)
    stored, affine = _to_slices(path, stored, affine)
    planes = tuple(_planes(stored.shape, affine))
    canonical, in_plane = planes[0].canonical()
    if canonical.tilt_degrees() > MAXIMUM_TILT_DEGREES:
        raise RefusedFile(
            path, "not axial", f"its slices are more than {MAXIMUM_TILT_DEGREES:.0f} degrees from axial, reformat it"
        )
    stored = in_plane.apply(stored)
    planes = tuple(plane.canonical()[0] for plane in planes)
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return NiftiStack(path, stored, float(slope), float(intercept), planes)


def _load(path: Path) -> tuple[np.ndarray, Any]:
    try:
        image: Any = nib.load(path)
        if not isinstance(image, (nib.Nifti1Image, nib.Nifti1Pair, nib.Nifti2Image)):
            raise RefusedFile(path, "not NIfTI", "is not a NIfTI-1 or NIfTI-2 file, convert it")
        proxy: Any = image.dataobj
        return np.asanyarray(proxy.get_unscaled()), image
    except FileNotFoundError as error:
        raise RefusedFile(path, "unreadable", "does not exist, check the path") from error
    except PermissionError as error:
        raise RefusedFile(path, "unreadable", "cannot be read (PermissionError), check its rights") from error
    except (ImageFileError, OSError, EOFError, ValueError, TypeError, KeyError, OverflowError, zlib.error) as error:
        raise RefusedFile(path, "damaged NIfTI", "is damaged or cut short, copy or download it again") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "nibabel":  # HeaderDataError and its kin share no base class
            raise RefusedFile(path, "damaged NIfTI", "has a damaged NIfTI header, export it again") from error
        raise


def _check_affine(path: Path, affine: np.ndarray) -> None:
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise RefusedFile(
            path, "no geometry", "its affine is not usable, so its orientation and spacing are unknown; export it again"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < 0.01 or spacing.max() > 50:
        raise RefusedFile(path, "voxel spacing", "its voxel spacing is not between 0.01 and 50 mm, mend the header")


def _to_slices(path: Path, stored: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(slices, a, b) from inferior to superior, with the affine of (a, b, slice)."""
    axes = nib.orientations.io_orientation(affine)[:, 0]
    if not np.isfinite(axes).all():
        raise RefusedFile(
            path, "no geometry", "its affine is not usable, so its orientation and spacing are unknown; export it again"
        )
    third = int(np.flatnonzero(axes == 2)[0])
    order = [axis for axis in range(3) if axis != third] + [third]
    stored, affine = stored.transpose(order), affine[:, [*order, 3]].copy()
    if affine[2, 2] < 0:
        affine[:, 3] += affine[:, 2] * (stored.shape[2] - 1)
        affine[:, 2] *= -1
        stored = stored[:, :, ::-1]
    return stored.transpose(2, 0, 1), affine


def _planes(shape: tuple[int, ...], affine: np.ndarray) -> Iterator[Plane]:
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3].astype(np.float64)
    for number in range(shape[0]):
        yield Plane(lps[:, 3] + lps[:, 2] * number, lps[:, 0], lps[:, 1], (shape[1], shape[2]))


def check_hounsfield(stack: NiftiStack) -> None:
    """Refuse label maps and images that are not in HU.

    A CT has air or fat, so something below 0 HU; a label map holds few whole numbers from 0 on.
    """
    named = bool(_LABEL_NAME.search(re.sub(r"[\d_.\-]+", " ", f"{stack.path.parent.name} {stack.path.name}".lower())))
    low, high, whole, few = _value_summary(stack)
    if not np.isfinite([low, high]).all():
        raise RefusedFile(stack.path, "not a number", "holds NaN or infinite voxels, replace them by -1024")
    if low >= 0 and whole and (named or (high <= 255 and few)):
        raise RefusedFile(stack.path, "label, not an image", "a label map, not an image")
    if low == high:
        raise RefusedFile(stack.path, "empty image", "all its voxels have one value, so it shows nothing")
    if low >= 0:
        raise RefusedFile(
            stack.path,
            "not in HU",
            "has no value below 0, so it is not a CT in HU; subtract the offset (often 1024) if it is a CT",
        )


def _value_summary(stack: NiftiStack) -> tuple[float, float, bool, bool]:
    """Minimum, maximum, whether all are whole, whether at most 150 differ; slice by slice to bound memory."""
    low, high, whole, seen = np.inf, -np.inf, True, np.zeros(256, dtype=bool)
    for plane in stack.stored:
        values = plane if (stack.slope, stack.intercept) == (1.0, 0.0) else plane * stack.slope + stack.intercept
        smallest, largest = float(values.min()), float(values.max())
        if not np.isfinite([smallest, largest]).all():
            return np.nan, np.nan, False, False
        low, high = min(low, smallest), max(high, largest)
        if low < 0:
            continue
        whole = whole and (np.issubdtype(values.dtype, np.integer) or bool(np.all(values == np.rint(values))))
        if whole and high <= 255:
            seen[np.unique(values.astype(np.uint8))] = True
    return low, high, whole, int(seen.sum()) <= 150
