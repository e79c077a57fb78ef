"""The wall of a generated hollow organ, unrolled: radius, relief and colour over angle and length, in mm."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from monai_ssl_transfer.data.phantoms.endoscopy_noise import noise

ROWS = 512  # texels around
ERODED_MM = 8.0
_LONGEST = 32000
Colour = tuple[float, float, float]


@dataclass
class Wall:
    """A tube along z: what its surface is like at every angle and length.

    The maps have ``ROWS`` rows (angle 0 to 2 pi) and one column per ``step`` mm from ``start``, so
    that texels are about square.

    Args:
        start: z of the first column in mm.
        step: mm from column to column.
        radius: distance of the surface from the centre line in mm, float32 (ROWS, columns).
        albedo: linear RGB, float32 (3, ROWS, columns).
        lesion: 1 where a lesion of the wall is, float32 (ROWS, columns).
        wet: slope of the mucus film that breaks up reflections, float32 (ROWS, columns, 2).
        centre: x and y of the centre line in mm, float32 (columns, 2).
        width: usual radius in mm.
    """

    start: float
    step: float
    radius: np.ndarray
    albedo: np.ndarray
    lesion: np.ndarray
    wet: np.ndarray
    centre: np.ndarray
    width: float
    _tables: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def columns(self) -> int:
        """Number of columns of every map."""
        return self.radius.shape[1]

    @property
    def z(self) -> np.ndarray:
        """z of every column in mm, float32 (columns,)."""
        return (self.start + self.step * np.arange(self.columns)).astype(np.float32)

    @property
    def angle(self) -> np.ndarray:
        """Angle of every row in radians, float32 (ROWS, 1)."""
        return (2 * np.pi / ROWS * np.arange(ROWS, dtype=np.float32))[:, None]

    def raise_surface(self, height: np.ndarray) -> None:
        """Move the surface inwards by ``height`` mm, float32 (ROWS, columns), but never closer than 0.4 mm."""
        np.maximum(self.radius - height, 0.4, out=self.radius)

    def tint(self, colour: Colour, weight: np.ndarray) -> None:
        """Mix a linear RGB colour into the albedo; the weight is 0 to 1, float32 (ROWS, columns)."""
        weight = weight.astype(np.float32)
        for plane, value in zip(self.albedo, colour, strict=True):
            plane += weight * (np.float32(value) - plane)

    def filter(self, factor: Colour, weight: np.ndarray) -> None:
        """Multiply the albedo by a colour, as an absorbing layer does; the weight (ROWS, columns) is its thickness."""
        weight = weight.astype(np.float32)
        for plane, value in zip(self.albedo, factor, strict=True):
            plane *= np.exp(weight * np.float32(np.log(value)))

    def distance(self, angle: float, z: float) -> tuple[np.ndarray, np.ndarray]:
        """Offsets in mm around and along the wall from a point of it, two float32 arrays that broadcast to the maps."""
        near = float(np.median(self.radius[:, int(np.clip((z - self.start) / self.step, 0, self.columns - 1))]))
        turn = (self.angle - np.float32(angle) + np.float32(np.pi)) % np.float32(2 * np.pi) - np.float32(np.pi)
        return turn * np.float32(max(near, 2.0)), self.z[None, :] - np.float32(z)

    def finish(self) -> Wall:
        """Make the look-up tables of the renderer; call it when the maps are complete."""
        around = (np.roll(self.radius, -1, 0) - np.roll(self.radius, 1, 0)) * np.float32(ROWS / (4 * np.pi))
        along = cv2.Sobel(
            self.radius, cv2.CV_32F, 1, 0, ksize=1, scale=0.5 / self.step, borderType=cv2.BORDER_REPLICATE
        )
        film = self.wet
        self._tables = {
            "march": _closed(np.stack([self.radius, _narrowest(self.radius, self.step, self.width)], -1)),
            "slope": _closed(np.stack([around, along, film[..., 0], film[..., 1]], -1)),
            "colour": _closed(np.stack([*self.albedo, self.lesion], -1)),
            "centre": np.ascontiguousarray(self.centre.T),
            "lean": np.ascontiguousarray(np.gradient(self.centre, self.step, axis=0).T.astype(np.float32)),
        }
        return self

    def look_up(self, table: str, angle: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Values of a table at angles (radians, 0 to 2 pi) and z (mm), each float32 (N,); returns (N, channels)."""
        row = angle * np.float32(ROWS / (2 * np.pi))
        return sample(self._tables[table], (z - np.float32(self.start)) * np.float32(1 / self.step), row)

    def offset(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position relative to the centre line, two float32 (N,)."""
        centre = self._along("centre", z)
        return x - centre[0], y - centre[1]

    def lean(self, z: np.ndarray) -> np.ndarray:
        """Derivative of the centre line by z, float32 (2, N)."""
        return self._along("lean", z)

    def _along(self, table: str, z: np.ndarray) -> np.ndarray:
        """Nearest column: a centre line bends too little for interpolation to matter."""
        column = ((z - np.float32(self.start)) * np.float32(1 / self.step)).astype(np.int32)
        return self._tables[table].take(column, axis=1, mode="clip")


def _narrowest(radius: np.ndarray, step: float, width: float) -> np.ndarray:
    """The smallest radius within ``ERODED_MM`` around every texel, on a coarse grid because it only guides the rays."""
    coarse = 4
    around = round(ERODED_MM / width / (2 * np.pi) * ROWS / coarse) + 1
    along = round(ERODED_MM / step / coarse) + 1
    small = cv2.erode(radius, np.ones((coarse, coarse), np.uint8), borderType=cv2.BORDER_REPLICATE)[::coarse, ::coarse]
    small = np.concatenate([small[-around:], small, small[:around]])
    small = cv2.erode(small, np.ones((1, 2 * along + 1), np.uint8), borderType=cv2.BORDER_REPLICATE)
    small = cv2.erode(small, np.ones((2 * around + 1, 1), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small[around:-around], radius.shape[::-1], interpolation=cv2.INTER_NEAREST)


def _closed(table: np.ndarray) -> np.ndarray:
    """Append the first row, so that interpolation crosses the seam."""
    return np.ascontiguousarray(np.concatenate([table, table[:1]]).astype(np.float32))


def sample(table: np.ndarray, column: np.ndarray, row: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """Bilinear values of a table at any positions.

    Args:
        table: (rows, columns, channels), at most four channels.
        column: positions, float32 (N,).
        row: positions, float32 (N,).
        border: what lies beyond the edges, as OpenCV names it.

    Returns:
        float32 (N, channels).
    """
    count, channels = len(column), table.shape[2]
    values = np.empty((count, channels), np.float32)
    for first in range(0, count, _LONGEST):  # cv2.remap takes no side of 32768 or more
        part = slice(first, first + _LONGEST)
        values[part] = cv2.remap(table, column[None, part], row[None, part], cv2.INTER_LINEAR, borderMode=border)[
            0
        ].reshape(-1, channels)
    return values


def blank_wall(rng: np.random.Generator, start: float, length: float, radius: float, albedo: Colour) -> Wall:
    """A smooth round tube with slow changes of width and colour.

    Args:
        rng: source of all that differs.
        start: z of its beginning in mm.
        length: in mm.
        radius: mean radius in mm.
        albedo: linear RGB of its mucosa.

    Returns:
        The wall; ``finish`` it after folds, patches and vessels have been added.
    """
    step = 2 * np.pi * radius / ROWS
    columns = int(length / step) + 1
    z = step * np.arange(columns, dtype=np.float32)
    slow = noise(rng, 200, columns)
    base = np.full((ROWS, columns), radius, np.float32) * (1 + 0.035 * slow)
    shade = 1 + 0.10 * slow + 0.06 * noise(rng, 100, columns) + 0.04 * noise(rng, 26, columns)
    ruddy = np.float32(0.06) * noise(rng, 100, columns)
    pale = shade * (1 - ruddy)
    colour = np.stack([np.float32(own) * part for own, part in zip(albedo, (shade, pale, pale), strict=True)])
    film = 0.7 * noise(rng, 14, columns) + 0.35 * noise(rng, 5, columns) + 0.5 * noise(rng, 8, columns)
    wet = np.stack([np.roll(film, 1, 0) - film, np.roll(film, 1, 1) - film], -1)
    waves = rng.uniform(0, 2 * np.pi, (2, 2))
    pace = rng.uniform(90, 170, (2, 2))
    bend = rng.uniform(3, 9, (2, 2)) * radius / 25
    centre = sum(bend[:, k] * np.sin(2 * np.pi * (z[:, None] + start) / pace[:, k] + waves[:, k]) for k in range(2))
    return Wall(
        start, step, base, colour, np.zeros((ROWS, columns), np.float32), wet, np.asarray(centre, np.float32), radius
    )
