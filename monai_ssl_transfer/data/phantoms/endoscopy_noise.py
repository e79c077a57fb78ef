"""Random surface patterns of the generated endoscopy: periodic band-pass noise and branching vessels."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

WAVELENGTHS = (3, 5, 8, 14, 26, 50, 100, 200)  # texels
_SIDE = 512
_BANK_SEED = 20240917
_TREE_MAPS = 2
_TREE_AMOUNTS = (1, 2, 4, 7)  # quarters of the usual density; few, because a map takes long to draw


@lru_cache(maxsize=1)
def _bank() -> dict[int, np.ndarray]:
    """One periodic field (512, 512) per wavelength; made once, because an FFT costs as much as a whole frame."""
    fields = {}
    radius = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None, :])
    for number, wavelength in enumerate(WAVELENGTHS):
        white = np.random.default_rng([_BANK_SEED, number]).standard_normal((_SIDE, _SIDE))
        band = np.exp(-(((radius * wavelength - 1) / 0.45) ** 2))
        field = np.fft.irfft2(np.fft.rfft2(white) * band, (_SIDE, _SIDE))
        fields[wavelength] = (field / field.std()).astype(np.float32)
    return fields


def noise(rng: np.random.Generator, wavelength: int, columns: int = _SIDE) -> np.ndarray:
    """A random field of zero mean and unit standard deviation, periodic along its 512 rows.

    Args:
        rng: chooses the part of the noise bank.
        wavelength: in texels, one of ``WAVELENGTHS``.
        columns: width of the field; it repeats after 512.

    Returns:
        float32 (512, columns).
    """
    field = _bank()[wavelength][:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    field = np.roll(field, (int(rng.integers(_SIDE)), int(rng.integers(_SIDE))), (0, 1))
    return np.ascontiguousarray(np.tile(field, (1, -(-columns // _SIDE)))[:, :columns])


def vessels(rng: np.random.Generator, columns: int, density: float = 1.0, widest: int = 4) -> np.ndarray:
    """Branching submucosal vessels on an unrolled wall.

    Args:
        rng: chooses the part of the bank of vessel trees.
        columns: width of the map; its 512 rows close to a tube.
        density: 1 gives about one tree for 10,000 texels; the nearest of four densities is taken.
        widest: diameter of a trunk in texels.

    Returns:
        float32 (512, columns) of 0 (none) to 1 (a vessel that lies close to the surface).
    """
    amount = min(_TREE_AMOUNTS, key=lambda quarters: abs(quarters - 4 * density))
    field = _trees(amount, widest, int(rng.integers(_TREE_MAPS)))[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    field = np.roll(field, (int(rng.integers(_SIDE)), int(rng.integers(_SIDE))), (0, 1))
    return np.ascontiguousarray(np.tile(field, (1, -(-columns // _SIDE)))[:, :columns])


@lru_cache(maxsize=64)
def _trees(amount: int, widest: int, number: int) -> np.ndarray:
    """One periodic map (512, 512) of vessel trees, ``amount`` quarters of one for 10,000 texels."""
    rng = np.random.default_rng([_BANK_SEED, amount, widest, number])
    canvas = np.zeros((_SIDE, _SIDE), np.uint8)
    for _ in range(amount * _SIDE * _SIDE // 40000):
        start, width = rng.uniform(0, _SIDE, 2), widest * rng.uniform(0.5, 1.0)
        _grow(canvas, rng, start, rng.uniform(0, 2 * np.pi), width, int(rng.integers(90, 235)))
    return cv2.GaussianBlur(canvas, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT).astype(np.float32) / np.float32(255)


def _grow(
    canvas: np.ndarray, rng: np.random.Generator, at: np.ndarray, heading: float, width: float, tone: int
) -> None:
    """Draw a branch and, smaller, those that leave it."""
    steps = int(rng.integers(8, 16))
    turns = np.cumsum(np.cumsum(rng.normal(0, 0.09, steps)) + rng.normal(0, 0.18, steps)) + heading
    points = at + np.cumsum(5.0 * np.stack([np.cos(turns), np.sin(turns)], 1), 0)
    _draw(canvas, np.vstack([at, points]), width, tone)
    if width < 1.0:
        return
    for index in rng.integers(2, steps, int(rng.integers(2, 4))):
        side = rng.choice((-1, 1)) * rng.uniform(0.4, 1.1)
        _grow(canvas, rng, points[index], turns[index] + side, width * rng.uniform(0.4, 0.62), int(tone * 0.9))


def _draw(canvas: np.ndarray, points: np.ndarray, width: float, tone: int) -> None:
    """An antialiased line that goes on at the opposite edge when it crosses one."""
    low, high = points.min(0), points.max(0)
    shifts = [[0] + [-_SIDE] * bool(high[k] >= _SIDE - 4) + [_SIDE] * bool(low[k] < 4) for k in range(2)]
    for right in shifts[0]:
        for down in shifts[1]:
            line = np.round((points + np.array((right, down))) * 8).astype(np.int32)
            cv2.polylines(canvas, [line], False, tone, max(round(width), 1), cv2.LINE_AA, 3)


def spider(rng: np.random.Generator, radius: float) -> np.ndarray:
    """The tortuous vessels of an angiodysplasia: fine branches from a centre.

    Args:
        rng: source of the branches.
        radius: reach of the branches in texels.

    Returns:
        float32 (2 m, 2 m) of 0 to 1 around the centre, m about 1.7 times the radius.
    """
    half = int(np.ceil(radius * 1.7)) + 2
    canvas = np.zeros((2 * half, 2 * half), np.uint8)
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(6, 12)), endpoint=False):
        at, heading = np.array([half, half], float), angle + rng.normal(0, 0.3)
        for part in range(2):
            turns = heading + np.cumsum(rng.normal(0, 0.5, 7))
            points = at + np.cumsum(radius / 9 * np.stack([np.cos(turns), np.sin(turns)], 1), 0)
            line = np.round(np.vstack([at, points]) * 8).astype(np.int32)
            cv2.polylines(canvas, [line], False, 255 - 60 * part, 2 - part, cv2.LINE_AA, 3)
            at, heading = points[int(rng.integers(3, 7))], float(turns[-1]) + rng.choice((-0.7, 0.7))
    return canvas.astype(np.float32) / np.float32(255)
