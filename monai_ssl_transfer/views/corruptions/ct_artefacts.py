"""Artefacts of CT in HU: streaks of starved rays, rings of detector elements, metal."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ssl_transfer.views.corruptions.ct_rays import WATER, coarse_square, paths, ramp, smeared
from monai_ssl_transfer.views.corruptions.fields import pixels

_STREAK_DIRECTIONS = 72
_METAL_DIRECTIONS = 240
_SIDE = 256
_STARVED = 0.9
_LONGEST = 12.0
_BODY = -300
_BONE = 250
# of titanium in 1/mm, and the share of a path's square that is lost to beam hardening
_TITANIUM, _HARDENING = 0.35, 0.02
_METAL_HU = 3071
_ROD = 15.0
_RINGS = 12


def streak(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], sigma: float
) -> np.ndarray:
    """Streaks along the rays that hardly a photon survives: through both shoulders or hips, between arms and spine.

    Noise of single rays, with a variance of exp(0.9 path), is filtered with the ramp and smeared back along the rays of
    72 directions.

    Args:
        volume: (Z, R, C) float32 HU.
        random: numbers of this volume.
        spacing: of slices, rows and columns, mm.
        sigma: SD of the streaks in the body, HU, over the whole volume.
    """
    angles = (np.arange(_STREAK_DIRECTIONS) + random.random()) * np.pi / _STREAK_DIRECTIONS
    found = np.stack([_streaks(one, spacing[1:], angles, random) for one in volume])
    body = volume > _BODY
    spread = float(found[body].std()) if body.any() else float(found.std())
    return volume + np.float32(sigma / max(spread, 1e-9)) * found


def _streaks(
    hu: np.ndarray, spacing: tuple[float, float], angles: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    square, pixel = coarse_square(hu, spacing, _SIDE)
    through = np.minimum(paths(square, pixel, angles), _LONGEST)
    noise = random.standard_normal(through.shape) * np.exp(_STARVED / 2 * through)
    return smeared(ramp(noise, pixel), pixel, angles, hu.shape, spacing)


def ring(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], height: float
) -> np.ndarray:
    """Rings of badly calibrated detector elements around the middle of the slice, the same through the volume.

    Args:
        volume: (Z, R, C) float32 HU.
        random: numbers of this volume.
        spacing: not used.
        height: of the strongest ring, HU.
    """
    rows, columns = volume.shape[1:]
    y, x = np.ogrid[:rows, :columns]
    distance = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2)
    end = min(rows, columns) / 2
    width = max(0.6, pixels(0.9, (rows, columns)))
    radii = end * np.sqrt(random.uniform(0.002, 0.9, _RINGS))
    heights = random.uniform(0.3, 1.0, _RINGS) * np.where(random.random(_RINGS) < 0.5, -1, 1) * (1.15 - radii / end)
    heights *= height / np.abs(heights).max()
    axis = np.arange(0, float(distance.max()) + 1, 0.05)
    profile = sum(h * _ripple((axis - r) / width) for h, r in zip(heights, radii, strict=True))
    return volume + np.interp(distance, axis, profile).astype(np.float32)


def _ripple(x: np.ndarray) -> np.ndarray:
    """One element after the ramp: a peak with a shallow trough on both sides."""
    return (1 - 0.5 * x**2) * np.exp(-(x**2) / 2)


def metal(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], radius: float, strength: float
) -> np.ndarray:
    """A screw in bone (else in the middle of the body) with the dark bands and bright streaks of beam hardening.

    The rays that pass the screw lose a share of the square of their path, more along than across the body, and carry
    noise of starved photons; the ramp and the way back spread that over the slice. The screw is 3 cm long across the
    slices. Labels keep their places.

    Args:
        volume: (Z, R, C) float32 HU.
        random: numbers of this volume.
        spacing: of slices, rows and columns, mm.
        radius: of the screw, mm.
        strength: 99th percentile of the artefact in the body, HU.
    """
    number, place = _screw(volume, random)
    seed = int(random.integers(2**32))
    away = (np.arange(len(volume)) - number) * (spacing[0] if spacing[0] > 0 else 1.0)
    share = np.clip(1.5 - np.abs(away) / _ROD, 0, 1)
    result = volume.copy()
    for z in np.flatnonzero(share > 0):
        numbers = np.random.Generator(np.random.Philox(key=seed + int(z)))
        artefact, inside = _metal_artefact(volume[z], numbers, spacing[1:], place, radius)
        body = (volume[z] > _BODY) & (inside < 0.01)
        level = float(np.percentile(np.abs(artefact[body]), 99)) if body.any() else 1.0
        marked = volume[z] + np.float32(strength / max(level, 1e-6)) * artefact
        # an artefact is no matter in the air around the patient: there it is weaker, as HU end at -1024
        result[z] += share[z] * (marked - volume[z]) * (1 - inside) + (share[z] >= 1) * inside * (_METAL_HU - volume[z])
    return result


def _screw(volume: np.ndarray, random: np.random.Generator) -> tuple[int, tuple[int, int]]:
    """Slice, and row and column, of the screw: in bone of the slice that has most of it."""
    bone = cv2.erode((np.moveaxis(volume, 0, -1) > _BONE).astype(np.uint8), np.ones((3, 3), np.uint8))
    bone = bone.reshape(*volume.shape[1:], len(volume))
    number = int(bone.sum(axis=(0, 1)).argmax())
    candidates = np.argwhere(bone[..., number])
    pick = random.random()
    if not len(candidates):
        number = len(volume) // 2
        candidates = np.argwhere(volume[number] > _BODY)
    if not len(candidates):
        return number, (volume.shape[1] // 2, volume.shape[2] // 2)
    # spine or pelvis rather than sternum or the back of a rib (rows go to posterior)
    late = candidates[len(candidates) // 2 : max(len(candidates) * 4 // 5, len(candidates) // 2 + 1)]
    row, column = late[int(pick * len(late))]
    return number, (int(row), int(column))


def _metal_artefact(
    hu: np.ndarray, random: np.random.Generator, spacing: tuple[float, float], place: tuple[int, int], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """What a screw does to a slice (any unit), and the share of every pixel inside of it."""
    square, pixel = coarse_square(hu, spacing, _SIDE)
    angles = np.arange(_METAL_DIRECTIONS) * np.pi / _METAL_DIRECTIONS
    body = paths(square, pixel, angles)
    y, x = ((p - (n - 1) / 2) * step for p, n, step in zip(place, hu.shape, spacing, strict=True))
    position = (np.arange(_SIDE) - (_SIDE - 1) / 2) * pixel
    offset = position - (np.cos(angles) * x + np.sin(angles) * y)[:, None]
    wide = max(radius, pixel)
    screw = 2 * (_TITANIUM - WATER) * radius / wide * np.sqrt(np.clip(wide**2 - offset**2, 0, None))
    # the mean over directions would only darken the screw itself; the differences are the bands
    lost = -2 * _HARDENING * screw * (body - (body * screw).sum() / screw.sum())
    starved = (
        0.0012 * random.standard_normal(body.shape) * np.exp(0.45 * np.minimum(body + screw, _LONGEST)) * (screw > 0)
    )
    artefact = smeared(ramp(lost + starved, pixel), pixel, angles, hu.shape, spacing)
    rows = (np.arange(hu.shape[0]) - place[0])[:, None] * spacing[0]
    columns = (np.arange(hu.shape[1]) - place[1])[None] * spacing[1]
    inside = np.clip((radius - np.hypot(rows, columns)) / min(spacing) + 0.5, 0, 1).astype(np.float32)
    return artefact, inside
