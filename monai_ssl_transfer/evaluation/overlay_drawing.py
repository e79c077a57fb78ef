"""Contours of masks on a picture, and pictures with contours as JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.measure import find_contours

Colour = tuple[int, int, int]
TRUTH_COLOUR: Colour = (60, 255, 60)
PREDICTION_COLOUR: Colour = (70, 170, 255)
LONGEST_SIDE = 480
_LINE = 2
_DASH = 9
_TEXT = 15


def overlay_jpeg(image: torch.Tensor, truth: np.ndarray, prediction: np.ndarray) -> bytes:
    """Draw the contours of two label maps on a photograph.

    Args:
        image: (3, H, W) of 0..255.
        truth: (H, W) label map.
        prediction: (H, W) label map.

    Returns:
        JPEG bytes; the longest side has at most 480 pixels.
    """
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    pixels = plain.detach().cpu().permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    drawn = np.array(picture)
    for labels, outside, colour in ((truth, True, TRUTH_COLOUR), (prediction, False, PREDICTION_COLOUR)):
        for value in np.unique(labels[labels > 0]):
            drawn[contour(at_size(labels == value, picture.size), outside)] = colour
    return jpeg_bytes(Image.fromarray(drawn))


def jpeg_bytes(picture: Image.Image) -> bytes:
    """A picture as JPEG whose thin coloured lines stay sharp."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80, subsampling=0)
    return stream.getvalue()


def at_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A bool mask (H, W) at the size (columns, rows) of a picture."""
    return np.array(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0


def contour(mask: np.ndarray, outside: bool) -> np.ndarray:
    """Two pixels wide line around a mask, just outside of it or just inside.

    Args:
        mask: (H, W) bool.
        outside: whether the line lies outside.

    Returns:
        (H, W) bool.
    """
    if outside:
        return binary_dilation(mask, iterations=_LINE) & ~mask
    return mask & ~binary_erosion(mask, iterations=_LINE)


def dashed_contour(mask: np.ndarray) -> np.ndarray:
    """The line just inside of a mask, in dashes of equal length along the border.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) bool.
    """
    dashes = Image.new("1", mask.shape[::-1])
    pencil = ImageDraw.Draw(dashes)
    for border in find_contours(np.pad(mask, 1).astype(float), 0.5):
        points = border[:, ::-1] - 1
        way = np.concatenate([[0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
        for i in np.flatnonzero((way[:-1] // _DASH) % 2 == 0):  # wide, because only the line itself is kept of it
            pencil.line([*points[i], *points[i + 1]], fill=1, width=2 * _LINE + 3)
    return np.array(dashes) & contour(mask, outside=False)


def captioned(picture: Image.Image, entries: Sequence[tuple[str, Colour]]) -> Image.Image:
    """A picture with words in their colours below, and an R at its left edge, where the patient's right is."""
    font = ImageFont.load_default(_TEXT)
    width, line = max(picture.width, LONGEST_SIDE), _TEXT + 6
    places, left, top = [], 6, picture.height + 3
    for text, colour in entries:
        length = round(font.getlength(text)) + 14
        if left > 6 and left + length > width:
            left, top = 6, top + line
        places.append((left, top, text, colour))
        left += length
    result = Image.new("RGB", (width, top + line))
    edge = (width - picture.width) // 2
    result.paste(picture, (edge, 0))
    pencil = ImageDraw.Draw(result)
    pencil.text((edge + 6, picture.height // 2), "R", (255, 255, 255), font, stroke_width=2, stroke_fill=(0, 0, 0))
    for left, top, text, colour in places:
        pencil.text((left, top), text, colour, font)
    return result
