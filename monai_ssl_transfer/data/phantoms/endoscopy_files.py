"""Files of generated endoscopy: JPEG photographs with margin and text, JPEG masks, boxes, depth maps."""

from __future__ import annotations

import uuid
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from monai_ssl_transfer.data.phantoms.endoscopy_picture import Frame

DEPTH_MM = 100.0  # that 65535 stands for in C3VD
ORIENTATION_TAG = 0x0112
_TURNED = 6  # EXIF: turn the stored picture clockwise to see it upright


class Photograph(NamedTuple):
    """A picture on its canvas.

    Args:
        image: RGB, uint8 (rows, columns, 3).
        mask: bool (rows, columns).
    """

    image: np.ndarray
    mask: np.ndarray


def random_stream(seed: int, *parts: int | str) -> np.random.Generator:
    """An independent source of randomness for one purpose of one user seed."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in parts]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def file_id(rng: np.random.Generator) -> str:
    """A name like HyperKvasir's, which are UUIDs."""
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


def kvasir_id(rng: np.random.Generator) -> str:
    """A name like Kvasir-SEG's: ``cju`` and 22 letters or digits."""
    return "cju" + "".join("0123456789abcdefghijklmnopqrstuvwxyz"[int(value)] for value in rng.integers(0, 36, 22))


def with_margin(frame: Frame, rng: np.random.Generator) -> Photograph:
    """Put a picture on the black canvas of an endoscopy workplace, with text to its left and sometimes an inset.

    The text names nobody: it holds empty fields, invented dates and the processor's settings.
    """
    rows, columns = frame.mask.shape
    left = round(columns * rng.uniform(0.08, 0.17))
    right = round(columns * rng.uniform(0.0, 0.02))
    image = np.zeros((rows, left + columns + right, 3), np.uint8)
    mask = np.zeros(image.shape[:2], bool)
    image[:, left : left + columns] = frame.image
    mask[:, left : left + columns] = frame.mask
    if rng.random() < 0.3:
        _inset(image, mask, rng)
    if rng.random() < 0.8:
        _text(image, rng)
    return Photograph(image, mask)


def write_photograph(path: Path, image: np.ndarray, rng: np.random.Generator, turned: bool = False) -> None:
    """Write a JPEG of the quality that archives use; ``turned`` stores it on its side with an EXIF orientation."""
    _write(path, image, turned, quality=int(rng.integers(82, 96)))


def write_jpeg_mask(path: Path, mask: np.ndarray, rgb: bool = False, turned: bool = False) -> None:
    """Write a mask as Kvasir-SEG has it: a JPEG, so its values are only near 0 and 255, of one or three channels."""
    grey = mask.astype(np.uint8) * np.uint8(255)
    _write(path, np.repeat(grey[..., None], 3, 2) if rgb else grey, turned, quality=90)


def write_depth(path: Path, depth: np.ndarray) -> None:
    """Write depth in mm as C3VD has it: a 16-bit TIFF in which 65535 is 100 mm and 0 means that it is not known."""
    values = np.round(np.clip(depth / DEPTH_MM, 0, 1) * 65535).astype(np.uint16)
    Image.fromarray(values).save(path)


def polyp_boxes(mask: np.ndarray) -> dict[str, object]:
    """An image's entry in ``kavsir_bboxes.json`` and ``bounding-boxes.json``: its size and a box per piece.

    As published, a box starts one pixel before the piece and ends behind its last pixel, which may be the border.
    """
    boxes = []
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    for left, top, width, height, area in stats[1:count].tolist():
        if area >= max(9, mask.size // 5000):
            edges = {"xmin": max(left - 1, 0), "ymin": max(top - 1, 0), "xmax": left + width, "ymax": top + height}
            boxes.append({"label": "polyp", **edges})
    return {"height": int(mask.shape[0]), "width": int(mask.shape[1]), "bbox": boxes}


def _write(path: Path, image: np.ndarray, turned: bool, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if turned:
        image = np.ascontiguousarray(np.rot90(image))
        exif[ORIENTATION_TAG] = _TURNED
    Image.fromarray(image).save(path, quality=quality, exif=exif)


def _inset(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Cover the lower left corner with the black or green window of a position tracker."""
    rows, columns = mask.shape
    top, right = round(rows * rng.uniform(0.62, 0.72)), round(columns * rng.uniform(0.28, 0.36))
    image[top:, :right] = 0
    mask[top:, :right] = False
    if rng.random() < 0.5:
        unit = max(rows // 64, 2)
        image[top + unit : rows - unit, unit : right - unit] = (8, 92, 40)
        points = np.cumsum(rng.normal(0, 0.1, (12, 2)), 0) + 0.5
        line = (np.clip(points, 0.1, 0.9) * (right - 2 * unit, rows - top - 2 * unit) + (unit, top + unit)).astype(
            np.int32
        )
        cv2.polylines(image, [line], False, (210, 210, 90), max(unit // 2, 1), cv2.LINE_AA)


def _text(image: np.ndarray, rng: np.random.Generator) -> None:
    rows = image.shape[0]
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(1, 13)), int(rng.integers(2008, 2017))
    clock = f"{int(rng.integers(7, 17)):02d}:{int(rng.integers(60)):02d}:{int(rng.integers(60)):02d}"
    lines = ["Sex:   Age:", "D.O.B.:", f"{day:02d}/{month:02d}/{year}", clock, "", "Q:N  CVP:6", "0/1"]
    scale = rows / 256 * 0.26
    at = round(rows * rng.uniform(0.2, 0.34))
    for number, line in enumerate(lines[int(rng.integers(0, 3)) :]):
        place = (2, at + round(number * rows * 0.042))
        cv2.putText(
            image, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (225, 225, 225), max(round(scale), 1), cv2.LINE_AA
        )
