"""What corruptions share: the random stream of an image, fields of a fixed grain, the part of a frame that is lit."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

GRAIN = 512
"""Longer side, in pixels, of the picture for which lengths are given."""
_DARK = 16 / 255


def random_stream(seed: int, name: str, identity: str) -> np.random.Generator:
    """The random numbers of one image under one corruption.

    They depend on nothing else: not on the order, the worker or the machine, and not on the severity, so that five
    severities are the same disturbance, growing.

    Args:
        seed: of the whole grid.
        name: of the corruption.
        identity: the image's own name.
    """
    key = hashlib.blake2b(f"{seed}\0{name}\0{identity}".encode(errors="surrogateescape"), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def pixels(length: float, shape: tuple[int, ...]) -> float:
    """A length in px at 512, in pixels of a picture of (rows, columns, ...)."""
    return length * max(shape[:2]) / GRAIN


def grain_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a picture of that shape with a longer side of 512."""
    scale = GRAIN / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W) or (H, W, C) float32 to (rows, columns): averaging when it shrinks, cubic when it grows."""
    if picture.shape[:2] == size:
        return picture
    mode = cv2.INTER_AREA if size[0] < picture.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(picture, size[::-1], interpolation=mode)


def smooth_field(shape: tuple[int, int], sigma: float, random: np.random.Generator) -> np.ndarray:
    """Random field of mean 0 and SD 1 whose grain is a Gaussian.

    Args:
        shape: rows and columns.
        sigma: of the Gaussian in pixels.
        random: its numbers.
    """
    step = max(1, int(sigma / 3))  # a coarse grid carries a smooth field
    coarse = tuple(-(-n // step) + 2 for n in shape)
    field = cv2.GaussianBlur(random.standard_normal(coarse).astype(np.float32), (0, 0), sigma / step)
    grown = cv2.resize(field, (coarse[1] * step, coarse[0] * step), interpolation=cv2.INTER_CUBIC)
    field = grown[step : step + shape[0], step : step + shape[1]]
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def lit_part(frame: np.ndarray) -> np.ndarray:
    """Share of every pixel that belongs to the endoscope's view, without black border and text in it.

    The border is put there by the video processor after the camera: noise, blur, smoke or bubbles do not reach it. A
    dark lumen inside of the view is part of the view.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.

    Returns:
        (H, W) float32 from 0 to 1; all 1 where no border is found.
    """
    dark = (cv2.GaussianBlur(frame.max(axis=2), (3, 3), 0) < _DARK).astype(np.uint8)
    _, parts = cv2.connectedComponents(dark, connectivity=4)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    inside = (~np.isin(parts, edge[edge > 0])).astype(np.uint8)
    width = 2 * max(1, round(pixels(2, frame.shape))) + 1
    opened = cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        return np.ones(frame.shape[:2], np.float32)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return cv2.GaussianBlur((parts == largest).astype(np.float32), (3, 3), 0)
