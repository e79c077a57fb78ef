"""Small pictures of scans and photographs for the page, with the mask as an outline."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from monai_ssl_transfer.data.audit.findings import Picture
from monai_ssl_transfer.data.audit.pixels import Slices, is_photograph, photograph_of, slices_of, slices_that_match
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

SIDE = 260
OUTLINE = (255, 214, 10)
_WINDOW = (-160.0, 240.0)  # soft tissue, HU


def thumbnails(pictures: Sequence[Picture]) -> list[bytes | None]:
    """JPEG bytes of at most 260 pixels a side; None for what cannot be drawn.

    Args:
        pictures: of one finding; two scans are shown at slices that match.
    """
    try:
        if len(pictures) == 2 and not any(map(is_photograph, pictures)):
            one, other = (slices_of(picture) for picture in pictures)
            first, second = slices_that_match(one, other)
            return [_scan_picture(one, first, outline=False), _scan_picture(other, second, outline=False)]
    except (DataError, IndexError, ValueError) as error:
        logger.debug("no thumbnails of %s: %s", pictures[0].name, error)
    return [_thumbnail(picture) for picture in pictures]


def _thumbnail(picture: Picture) -> bytes | None:
    try:
        if is_photograph(picture):
            return _drawn(*photograph_of(picture))
        slices = slices_of(picture)
        return _scan_picture(slices, slices.telling, outline=True)
    except (DataError, IndexError, ValueError) as error:
        logger.debug("no thumbnail of %s: %s", picture.name, error)
        return None


def _scan_picture(slices: Slices, number: int, outline: bool) -> bytes:
    mask = _square(slices.masks[number] > 0, slices.spacing) if outline and slices.masks is not None else None
    return _drawn(_windowed(slices.read(number), slices.spacing), mask)


def _drawn(pixels: np.ndarray, mask: np.ndarray | None) -> bytes:
    small = Image.fromarray(np.ascontiguousarray(pixels))
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    drawn = np.array(small)
    if mask is not None:
        inside = np.array(Image.fromarray(mask.astype(np.uint8)).resize(small.size, Image.Resampling.NEAREST)) > 0
        drawn[binary_dilation(inside, iterations=2) & ~inside] = OUTLINE
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "JPEG", quality=82)
    return stream.getvalue()


def _windowed(hu: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """(rows, columns, 3) uint8 in the soft tissue window, or stretched where nothing of the scan lies in it."""
    low, high = _WINDOW
    if hu.min() >= 0 or hu.max() < low:
        low, high = float(hu.min()), float(max(hu.max(), hu.min() + 1))
    grey = (np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return np.repeat(_square(grey, spacing)[..., None], 3, axis=2)


def _square(plane: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """A plane with square pixels."""
    if abs(spacing[0] / spacing[1] - 1) < 0.02:
        return np.ascontiguousarray(plane)
    unit = min(spacing)
    size = (round(plane.shape[1] * spacing[1] / unit), round(plane.shape[0] * spacing[0] / unit))
    return np.array(Image.fromarray(np.ascontiguousarray(plane).astype(np.uint8)).resize(size)).astype(plane.dtype)
