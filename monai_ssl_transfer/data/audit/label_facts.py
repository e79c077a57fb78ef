"""Reading a label map or a mask once."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from monai_ssl_transfer.data.audit.facts import LabelFacts
from monai_ssl_transfer.data.ct.nifti import open_nifti
from monai_ssl_transfer.data.ct.volume import stack_affine
from monai_ssl_transfer.data.endoscopy.frames import read_frame, read_mask
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.errors import DataError

# JPEG coding of a black and white mask stays this near to 0 and 255 but for single pixels along the edge
_DARK, _BRIGHT = 48, 207


def look_at_label(path: str, image: tuple[tuple[int, ...], np.ndarray, tuple[float, float]] | None) -> LabelFacts:
    """Read a NIfTI label map.

    Args:
        path: of the file.
        image: shape, canonical affine and pixel spacing of the image; None where there is none.
    """
    try:
        stack = open_nifti(path)
    except RefusedFile as refusal:
        return LabelFacts(problem=(refusal.code, refusal.sentence))
    affine = stack_affine(stack.planes)
    header: Any = nib.load(path)
    shape = tuple(stack.stored.shape)
    positions = stack.positions
    gap = float(np.median(np.diff(positions))) if len(positions) > 1 else 0.0
    labels, bad = _values(stack.stored, stack.slope, stack.intercept)
    return LabelFacts(
        shape=shape,
        spacing=(*stack.planes[0].spacing, gap),
        orientation="".join(str(code) for code in nib.orientations.aff2axcodes(header.affine)),
        distance=_corner_distance(shape, affine, image[1]) if image is not None and image[0] == shape else 0.0,
        labels=labels,
        bad_values=bad,
    )


def _corner_distance(shape: tuple[int, ...], one: np.ndarray, other: np.ndarray) -> float:
    """Largest distance in mm between the corners of two volumes of (slices, rows, columns)."""
    ends = [[r, c, z, 1] for r in (0, shape[1] - 1) for c in (0, shape[2] - 1) for z in (0, shape[0] - 1)]
    return float(np.linalg.norm((np.array(ends, dtype=float) @ (one - other).T)[:, :3], axis=1).max())


def _values(stored: np.ndarray, slope: float, intercept: float) -> tuple[dict[int, float], str]:
    counts, low, high, whole = np.zeros(256, np.int64), np.inf, -np.inf, True
    for plane in stored:
        values = plane if (slope, intercept) == (1.0, 0.0) else plane * slope + intercept
        if not np.isfinite(values).all():
            return {}, "NaN or infinite voxels"
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        # a scaled header may leave 0.9999998 of 1
        rounded = np.rint(values)
        whole = whole and bool(np.abs(values - rounded).max() < 1e-3)
        inside = rounded[(rounded >= 0) & (rounded <= 255)]
        counts += np.bincount(inside.astype(np.int64).ravel(), minlength=256)
    bad = []
    if not whole:
        bad.append("fractions")
    if low < 0 or high > 255:
        bad.append(f"values from {low:g} to {high:g}")
    total = max(1, int(counts.sum()))
    return {int(k): float(counts[k] / total) for k in np.flatnonzero(counts)}, " and ".join(bad)


def look_at_mask(path: str) -> LabelFacts:
    """Read the mask of a photograph."""
    try:
        grey = read_frame(path).max(axis=2)
        with Image.open(path) as image:
            jpeg = image.format in ("JPEG", "MPO")
        values = np.unique(grey)
        inside = grey > 127
        edge = int(np.count_nonzero(inside & ~binary_erosion(inside, border_value=1)))
        grey_width = np.count_nonzero((grey > _DARK) & (grey < _BRIGHT)) / max(edge, 1)
        if not jpeg and values.max() <= 127 and len(values) > 2:  # a map of several classes
            counts = np.bincount(grey.ravel())
            labels = {int(k): float(counts[k] / grey.size) for k in values}
            return LabelFacts(shape=grey.shape, labels=labels)
        mask = read_mask(path)
        marked = float(mask.mean())
        labels = {k: share for k, share in ((0, 1 - marked), (1, marked)) if share > 0}
        return LabelFacts(shape=mask.shape, labels=labels, grey_width=grey_width, jpeg=jpeg)
    except DataError as error:
        sentence = str(error).replace(str(path), "it").split(": ")[0]
        return LabelFacts(problem=("dark-mask" if "no binary mask" in sentence else "damaged", sentence))
