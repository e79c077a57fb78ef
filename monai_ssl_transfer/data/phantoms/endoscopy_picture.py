"""From light to photograph: the camera's processor, the black border, and the truth that belongs to a picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from monai_ssl_transfer.data.phantoms.endoscopy_anatomy import Scene
from monai_ssl_transfer.data.phantoms.endoscopy_camera import Camera
from monai_ssl_transfer.data.phantoms.endoscopy_rays import follow
from monai_ssl_transfer.data.phantoms.endoscopy_shading import shade

BORDERS = ("octagon", "cut", "round", "none")


@dataclass(frozen=True)
class Processor:
    """What the video processor does to every picture of an examination.

    Args:
        cast: gain of red, green and blue.
        saturation: 1 leaves colours as they are.
        sharpening: strength of the unsharp mask.
        noise: standard deviation in grey levels in the dark.
        vignette: loss of light in the corners, 0 to 1.
        softness: blur of the lens in pixels of a picture of 256.
        border: one of ``BORDERS``.
    """

    cast: tuple[float, float, float]
    saturation: float
    sharpening: float
    noise: float
    vignette: float
    softness: float
    border: str


@dataclass(frozen=True)
class Frame:
    """A picture and its truth.

    Args:
        image: RGB, uint8 (rows, columns, 3).
        mask: the lesion, bool (rows, columns).
        depth: mm along the viewing direction, float32 (rows, columns); 0 where the border hides the organ.
        seen: what the border leaves free, bool (rows, columns).
    """

    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    seen: np.ndarray


def draw_processor(rng: np.random.Generator, border: str) -> Processor:
    """A processor's settings."""
    red, blue = rng.normal(0, 0.03, 2)
    return Processor(
        cast=(float(1 + red), 1.0, float(1 + blue)),
        saturation=float(rng.uniform(0.95, 1.35)),
        sharpening=float(rng.uniform(0.3, 1.0)),
        noise=float(rng.uniform(1.0, 3.5)),
        vignette=float(rng.uniform(0.05, 0.35)),
        softness=float(rng.uniform(0.35, 0.8)),
        border=border,
    )


def photograph(
    scene: Scene,
    camera: Camera,
    processor: Processor,
    rng: np.random.Generator,
    rows: int,
    columns: int,
    shake: float = 0.2,
) -> Frame:
    """Take a picture.

    Args:
        scene: with a finished wall.
        camera: where from.
        processor: how the light becomes a picture.
        rng: noise and shake.
        rows: of the picture.
        columns: of the picture.
        shake: chance of a blurred picture.
    """
    seen = visible_part(processor.border, rows, columns)
    hits, forward = follow(scene.wall, scene.solids, camera, rows, columns, seen)
    linear = np.zeros((rows, columns, 3), np.float32)
    linear[seen] = shade(hits, scene.wall, scene.solids, camera, scene.patient.light)
    mask, depth = np.zeros(seen.shape, bool), np.zeros(seen.shape, np.float32)
    mask[seen] = _lesion(scene, hits.solid, hits.angle, hits.point[2])
    depth[seen] = np.clip(hits.away * forward, 0, 100)
    image = _develop(linear, processor, rng, shake)
    image[~seen] = 0
    return Frame(image, mask, depth, seen)


def lesion_mask(scene: Scene, camera: Camera, border: str, side: int = 64) -> np.ndarray:
    """The lesion in a small picture, to see whether a view shows it; bool (side, side)."""
    seen = visible_part(border, side, side)
    hits, _ = follow(scene.wall, scene.solids, camera, side, side, seen)
    mask = np.zeros(seen.shape, bool)
    mask[seen] = _lesion(scene, hits.solid, hits.angle, hits.point[2])
    return mask


def visible_part(border: str, rows: int, columns: int) -> np.ndarray:
    """What a border leaves free: octagon, rectangle with cut corners, round, or all; bool (rows, columns)."""
    y = np.abs((np.arange(rows) + 0.5) / rows * 2 - 1)[:, None]
    x = np.abs((np.arange(columns) + 0.5) / columns * 2 - 1)[None]
    if border == "octagon":
        return (x + y < 1.42) & (x < 0.985) & (y < 0.995)
    if border == "cut":
        return (x + y < 1.74) & (x < 0.97) & (y < 0.97)
    if border == "round":
        return x**2.6 + y**2.6 < 0.97
    return np.ones((rows, columns), bool)


def _lesion(scene: Scene, solid: np.ndarray, angle: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Which hits belong to a lesion of the wall or to a body that is one, bool (N,)."""
    on_wall = (scene.wall.look_up("colour", angle, z)[:, 3] > 0.5) & (solid < 0)
    bodies = np.array([body.lesion for body in scene.solids] + [False])
    return on_wall | bodies[solid]


def _develop(linear: np.ndarray, processor: Processor, rng: np.random.Generator, shake: float) -> np.ndarray:
    """Blur, colour, sharpening, vignette and noise of the camera; linear light (H, W, 3) to uint8."""
    rows, columns, _ = linear.shape
    unit = max(rows, columns) / 256
    linear = cv2.GaussianBlur(linear, (0, 0), max(processor.softness * unit * rng.uniform(0.8, 1.3), 0.3))
    if rng.random() < shake:
        linear = _moved(linear, rng, unit)
    y = (np.arange(rows, dtype=np.float32) / rows * 2 - 1)[:, None] ** 2
    x = (np.arange(columns, dtype=np.float32) / columns * 2 - 1)[None] ** 2
    linear = linear * (
        np.array(processor.cast, np.float32) * (1 - np.float32(processor.vignette / 2) * (x + y))[..., None]
    )
    image = np.power(np.clip(linear, 0, 1), np.float32(1 / 2.2))
    grey = image @ np.array((0.3, 0.59, 0.11), np.float32)
    image = grey[..., None] + np.float32(processor.saturation) * (image - grey[..., None])
    image += np.float32(processor.sharpening) * (image - cv2.GaussianBlur(image, (0, 0), 1.2 * unit))
    grain = rng.standard_normal((rows, columns, 1), np.float32)
    speckle = cv2.resize(rng.standard_normal((-(-rows // 2), -(-columns // 2), 3), np.float32), (columns, rows))
    image += (grain + 0.7 * speckle) * np.float32(processor.noise / 255) * (1.3 - grey[..., None])
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _moved(linear: np.ndarray, rng: np.random.Generator, unit: float) -> np.ndarray:
    """Blur along a straight line, as of a camera that moves during the exposure."""
    length = max(round(unit * rng.uniform(3, 9)), 2)
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    offset = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    first, last = (tuple(int(v) for v in np.round(length + sign * offset)) for sign in (-1, 1))
    cv2.line(kernel, first, last, 1.0)
    return cv2.filter2D(linear, -1, kernel / kernel.sum())
