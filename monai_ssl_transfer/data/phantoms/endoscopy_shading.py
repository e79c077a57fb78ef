"""Light and colour of generated mucosa: falling off with distance, reflected by mucus, exposed automatically."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from monai_ssl_transfer.data.phantoms.endoscopy_camera import Camera
from monai_ssl_transfer.data.phantoms.endoscopy_noise import noise
from monai_ssl_transfer.data.phantoms.endoscopy_rays import Hits
from monai_ssl_transfer.data.phantoms.endoscopy_solids import Solid
from monai_ssl_transfer.data.phantoms.endoscopy_wall import Wall, sample

_PATTERN_SIDE = 512


@dataclass(frozen=True)
class Light:
    """The lamp and the processor of an endoscope.

    Args:
        reach: mm at which the light has fallen to a half.
        ambient: share of light that comes from all sides of the organ.
        exposure: brightness that the automatic exposure aims at, 0 to 1.
        gloss: strength of the reflections.
        wetness: how much the mucus film breaks them up.
        lamps: offsets of the light sources from the lens in mm, (K, 2) in the picture's directions.
    """

    reach: float = 16.0
    ambient: float = 0.12
    exposure: float = 0.42
    gloss: float = 1.0
    wetness: float = 1.0
    lamps: tuple[tuple[float, float], ...] = ((-2.6, 0.6), (2.4, 0.9))


def shade(hits: Hits, wall: Wall, solids: Sequence[Solid], camera: Camera, light: Light) -> np.ndarray:
    """Linear colour of every hit before the picture is finished.

    Args:
        hits: what the rays meet.
        wall: finished wall.
        solids: the bodies that the hits refer to.
        camera: where from.
        light: lamp and processor.

    Returns:
        float32 (N, 3), 0 to 1.
    """
    albedo = wall.look_up("colour", hits.angle, hits.point[2])[:, :3]
    film = hits.film * (np.float32(light.wetness) / (1 + (hits.away / np.float32(30)) ** 2))[:, None]
    normal = hits.normal
    for number, solid in enumerate(solids):
        index = np.flatnonzero(hits.solid == number)
        if len(index):
            colour, bumps = _surface(solid, np.ascontiguousarray(hits.point[:, index]), light)
            albedo[index] = colour
            film[index] = bumps
            normal[:, index] += np.float32(0.35) * (_tangents(camera).T @ bumps.T)
    diffuse, mirror = _lamps(hits, normal, film, camera, light)
    blood = albedo / np.maximum(albedo[:, :1], np.float32(1e-3))
    bounced = np.float32(light.ambient) * (diffuse + np.float32(0.25) / (1 + (hits.away / np.float32(45)) ** 2))
    lit = albedo * (diffuse[:, None] + bounced[:, None] * blood)
    scale = _exposure(lit, light.exposure)
    colour = 1 - np.exp(-lit * scale)
    return np.clip(colour + mirror[:, None] * (1 - colour), 0, 1)


def _lamps(
    hits: Hits, normal: np.ndarray, film: np.ndarray, camera: Camera, light: Light
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse light (N,) and mirror-like reflection (N,), 0 to 1, of all lamps."""
    diffuse = np.zeros(hits.away.shape, np.float32)
    mirror = np.zeros_like(diffuse)
    position = camera.position.astype(np.float32)
    to_camera = _unit(position[:, None] - hits.point)
    rough = _unit(normal + np.float32(0.22) * (_tangents(camera).T @ film.T))
    for right, down in light.lamps:
        lamp = position + (camera.rotation[:, 0] * right + camera.rotation[:, 1] * down).astype(np.float32)
        way = lamp[:, None] - hits.point
        square = np.einsum("ij,ij->j", way, way)
        way /= np.sqrt(square)
        facing = np.einsum("ij,ij->j", normal, way)
        wrapped = np.maximum((facing + np.float32(0.28)) / np.float32(1.28), 0)
        strength = 1 / (1 + square / np.float32(light.reach**2))
        diffuse += wrapped * strength
        half = np.einsum("ij,ij->j", rough, _unit(way + to_camera))
        mirror += np.maximum(half - np.float32(0.972), 0) * np.float32(70) * np.sqrt(strength)
    mirror = np.clip((mirror - np.float32(0.75)) * np.float32(0.9 * light.gloss), 0, 1)
    return diffuse / len(light.lamps), mirror


def _tangents(camera: Camera) -> np.ndarray:
    """The picture's right and down as rows, float32 (2, 3): directions along which small bumps tilt a surface."""
    return np.ascontiguousarray(camera.rotation[:, :2].T.astype(np.float32))


def _exposure(lit: np.ndarray, target: float) -> np.float32:
    """The factor at which the upper middle of the picture gets the aimed brightness."""
    sample = lit[::23].mean(1)
    level = float(np.quantile(sample, 0.7))
    return np.float32(-np.log(1 - target**2.2) / max(level, 1e-5))


def _surface(solid: Solid, point: np.ndarray, light: Light) -> tuple[np.ndarray, np.ndarray]:
    """Colour (N, 3) and bumps (N, 2) of a body from a pattern wrapped around its head."""
    local = solid.axes.astype(np.float32) @ (point - solid.centre[:, None].astype(np.float32))
    texels = np.float32(5.0)  # per mm
    angle = np.arctan2(local[0], local[1])
    size = np.float32(solid.radii[:2].mean())
    polar = np.arctan2(np.hypot(local[0], local[1]), local[2])
    x, y = polar * size * texels * np.sin(angle) + 256, polar * size * texels * np.cos(angle) + 256
    log, slope = _pattern(solid.pattern, solid.texture_seed)
    colour = np.array(solid.albedo, np.float32) * np.exp(np.float32(solid.relief) * sample(log, x, y, cv2.BORDER_WRAP))
    return colour, sample(slope, x, y, cv2.BORDER_WRAP) * np.float32(light.wetness)


@lru_cache(maxsize=16)
def _pattern(kind: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log colour and slope of a surface pattern, float32 (512, 512, 3) and (512, 512, 2)."""
    rng = np.random.default_rng([seed, kind])
    slow = noise(rng, 50)
    if kind == 1:  # round pits
        pits = np.maximum(noise(rng, 8) - 0.7, 0) * 1.6
        grey, red = -0.5 * pits, 0.3 * pits
    elif kind == 2:  # gyri
        ridge = np.abs(noise(rng, 14) + 0.3 * noise(rng, 8))
        grey, red = 0.8 * np.minimum(ridge, 1.2) - 0.55, -0.35 * np.minimum(ridge, 1.2)
    elif kind == 3:  # red spots
        spots = np.maximum(noise(rng, 14) * 0.6 + noise(rng, 8) * 0.6 - 0.9, 0)
        grey, red = -0.7 * spots, 0.9 * spots
    else:
        grey, red = 0.25 * noise(rng, 14), 0.15 * noise(rng, 26)
    log = np.stack([grey + 0.2 * red, grey - red, grey - 0.9 * red], -1) + 0.25 * slow[..., None]
    film = 0.5 * noise(rng, 14) + 0.5 * noise(rng, 5) + 0.7 * noise(rng, 26) + 0.8 * grey
    slope = np.stack([np.roll(film, 1, 1) - film, np.roll(film, 1, 0) - film], -1)
    return log.astype(np.float32), slope.astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.sqrt(np.einsum("ij,ij->j", vector, vector)), np.float32(1e-6))
