"""A corruption as a pure function: image in, image of the same shape and type out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.corruptions import (
    ct_artefacts,
    ct_noise,
    ct_resolution,
    ct_values,
    mr_magnitude,
    photograph_blur,
    photograph_files,
    photograph_light,
    photograph_noise,
    photograph_scene,
)
from monai_ssl_transfer.views.corruptions.fields import lit_part, random_stream
from monai_ssl_transfer.views.corruptions.severities import CT, MR, PHOTOGRAPH, Corruption, corruption

_ROOMS = {
    PHOTOGRAPH: (photograph_noise, photograph_blur, photograph_light, photograph_files, photograph_scene),
    CT: (ct_noise, ct_resolution, ct_values, ct_artefacts),
    MR: (mr_magnitude, ct_resolution),
}
_EVERYWHERE = ("jpeg", "down_sampling", "rician_noise")
_LEAST, _MOST = -1024, 3071
_PADDING = -1100
_FIELD = 380.0
_TOP = 99.5


def corrupt_photograph(frame: np.ndarray, name: str, severity: int, identity: str, seed: int = 0) -> np.ndarray:
    """Corrupt one photograph; pixels keep their places, so that masks and boxes stay valid.

    Args:
        frame: (H, W, 3) uint8, or floating point from 0 to 1.
        name: of a corruption of photographs, as in `severities.CORRUPTIONS`.
        severity: 1 to 5; 0 returns the frame itself.
        identity: the photograph's own name: with `name` and `seed` it decides all random numbers.
        seed: of the whole grid.

    Returns:
        Same shape and type, cut off at the range.

    Raises:
        DataError: unknown corruption or severity, or no RGB.
    """
    row = corruption(PHOTOGRAPH, name)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise DataError(f"{identity} has the shape {frame.shape} where (rows, columns, 3) is needed: give it in RGB.")
    if severity == 0:
        return frame
    values = row.at(severity)
    whole = not np.issubdtype(frame.dtype, np.floating)
    given = frame.astype(np.float32) / (255 if whole else 1)
    found = np.clip(_function(PHOTOGRAPH, name)(given, random_stream(seed, name, identity), *values), 0, 1)
    if name not in _EVERYWHERE:
        found = given + lit_part(given)[..., None] * (found - given)
    return (np.rint(found * 255) if whole else found).astype(frame.dtype)


def corrupt_ct(
    volume: np.ndarray,
    name: str,
    severity: int,
    identity: str,
    spacing: Sequence[float] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Corrupt slices of CT; they stay in HU, and voxels keep their places, so that masks stay valid.

    Args:
        volume: (Z, R, C) HU of any number type, rows to posterior; values below -1100 are a scanner's padding and stay.
        name: of a corruption of CT, as in `severities.CORRUPTIONS`.
        severity: 1 to 5; 0 returns the volume itself.
        identity: the scan's own name: with `name` and `seed` it decides all random numbers.
        spacing: of slices, rows and columns in mm, 0 where it is not known; None takes slices of 380 mm.
        seed: of the whole grid.

    Returns:
        Same shape and type, cut off at -1024 and 3071 HU.

    Raises:
        DataError: unknown corruption or severity, a wrong shape, or a single slice where neighbours are needed.
    """
    row = _of_volumes(CT, name, volume, identity)
    if severity == 0:
        return volume
    values = row.at(severity)
    usual = _FIELD / max(volume.shape[1:])
    steps = [0.0, 0.0, 0.0] if spacing is None else [float(one) for one in spacing]
    between, rows, columns = steps[0], steps[1] or usual, steps[2] or usual
    given = volume.astype(np.float32)
    padding = given < _PADDING
    scene = np.where(padding, np.float32(_LEAST), given) if padding.any() else given
    found = _function(CT, name)(scene, random_stream(seed, name, identity), (between, rows, columns), *values)
    found = np.where(padding, given, np.clip(found, _LEAST, _MOST))
    return (found if np.issubdtype(volume.dtype, np.floating) else np.rint(found)).astype(volume.dtype)


def corrupt_mr(
    volume: np.ndarray,
    name: str,
    severity: int,
    identity: str,
    spacing: Sequence[float] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Corrupt a magnitude volume of one modality; voxels keep their places, so that masks stay valid.

    Its range goes from 0 to the percentile 99.5 of the voxels that are not zero. Zeros stay zero: they are what was cut
    away after the scan (the skull), and the bundles' z_score and percentile leave them out.

    Args:
        volume: (Z, R, C) of any number type, unscaled.
        name: of a corruption of MR, as in `severities.CORRUPTIONS`.
        severity: 1 to 5; 0 returns the volume itself.
        identity: the scan's and modality's own name: with `name` and `seed` it decides all random numbers.
        spacing: of slices, rows and columns in mm, 0 where it is not known.
        seed: of the whole grid.

    Returns:
        Same shape and type; itself where every voxel is zero.

    Raises:
        DataError: unknown corruption or severity, a wrong shape, or a single slice where neighbours are needed.
    """
    row = _of_volumes(MR, name, volume, identity)
    inside = volume != 0
    if severity == 0 or not inside.any():
        return volume
    values = row.at(severity)
    given = volume.astype(np.float32)
    top = float(np.percentile(np.abs(given[inside]), _TOP))
    steps = (0.0, 0.0, 0.0) if spacing is None else tuple(float(one) for one in spacing)
    found = _function(MR, name)(given / top, random_stream(seed, name, identity), steps, *values) * top
    found = np.where(inside, found, 0)
    if np.issubdtype(volume.dtype, np.floating):
        return found.astype(volume.dtype)
    limits = np.iinfo(volume.dtype)
    return np.clip(np.rint(found), limits.min, limits.max).astype(volume.dtype)


def _of_volumes(domain: str, name: str, volume: np.ndarray, identity: str) -> Corruption:
    row = corruption(domain, name)
    if volume.ndim != 3:
        raise DataError(f"{identity} has the shape {volume.shape} where (slices, rows, columns) is needed.")
    return row


def _function(domain: str, name: str) -> Callable[..., np.ndarray]:
    return next(getattr(room, name) for room in _ROOMS[domain] if hasattr(room, name))
