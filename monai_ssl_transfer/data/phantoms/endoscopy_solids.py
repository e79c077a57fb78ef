"""Bodies inside a generated organ: polyps on the wall, and the endoscope's own shaft in a retroflexed view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Solid:
    """Ellipsoids and rods that melt into the wall.

    Args:
        centre: of the head in mm, (3,).
        axes: rows are the directions across, along the organ, and away from the wall; orthonormal (3, 3).
        radii: half axes of the head along them in mm, (3,).
        root: foot of the stalk in mm, (3,), or None.
        stalk: radius of the stalk in mm.
        lumps: amplitude of the head's unevenness as a share of its radius.
        waves: directions and frequencies of the unevenness, (K, 3).
        phases: (K,).
        blend: mm over which it melts into the wall.
        albedo: linear RGB.
        pattern: index of its surface pattern (0 smooth, 1 round pits, 2 gyri, 3 red spots).
        relief: depth of the pattern.
        lesion: whether it belongs to the mask.
        texture_seed: place in the noise bank.
    """

    centre: np.ndarray
    axes: np.ndarray
    radii: np.ndarray
    albedo: Colour
    root: np.ndarray | None = None
    stalk: float = 0.0
    lumps: float = 0.0
    waves: np.ndarray | None = None
    phases: np.ndarray | None = None
    blend: float = 1.0
    pattern: int = 0
    relief: float = 0.0
    lesion: bool = True
    texture_seed: int = 0

    def bound(self) -> tuple[np.ndarray, float]:
        """Centre and radius in mm of a sphere that holds the body and its transition into the wall."""
        reach = float(self.radii.max()) * (1 + self.lumps) + 2 * self.blend
        if self.root is None:
            return self.centre, reach
        middle = (self.centre + self.root) / 2
        return middle, float(np.linalg.norm(self.centre - middle)) + max(reach, self.stalk + 2 * self.blend)

    def distance(self, point: np.ndarray) -> np.ndarray:
        """Approximate signed distance in mm of points (3, N), negative inside; float32 (N,)."""
        local = self.axes.astype(np.float32) @ (point - self.centre[:, None].astype(np.float32))
        unit = local / self.radii[:, None].astype(np.float32)
        length = np.sqrt(np.einsum("ij,ij->j", unit, unit)) + np.float32(1e-6)
        surface = np.float32(1.0)
        if self.waves is not None and self.phases is not None:
            wave = np.sin(self.waves.astype(np.float32) @ (unit / length) + self.phases[:, None].astype(np.float32))
            surface = 1 + np.float32(self.lumps) * wave.mean(0)
        scale = np.float32(self.radii.min())
        head = np.asarray((length - surface) * scale)
        if self.root is None:
            return head
        rod = self._rod(point)
        return smooth_minimum(head, rod, np.float32(0.6 * self.stalk))

    def _rod(self, point: np.ndarray) -> np.ndarray:
        if self.root is None:
            return np.full(point.shape[1], np.inf, np.float32)
        start = self.root.astype(np.float32)
        way = (self.centre - self.root).astype(np.float32)
        offset = point - start[:, None]
        along = np.clip(way @ offset / max(float(way @ way), 1e-6), 0, 1)
        gap = offset - way[:, None] * along
        return np.sqrt(np.einsum("ij,ij->j", gap, gap)) - np.float32(self.stalk)

    def gradient(self, point: np.ndarray) -> np.ndarray:
        """Direction in which the distance grows, by central differences of 0.05 mm, float32 (3, N)."""
        step = np.eye(3, dtype=np.float32) * np.float32(0.05)
        return np.stack(
            [self.distance(point + step[:, k : k + 1]) - self.distance(point - step[:, k : k + 1]) for k in range(3)]
        ) / np.float32(0.1)


def smooth_minimum(a: np.ndarray, b: np.ndarray, width: np.float32) -> np.ndarray:
    """The smaller of two distances with a rounded edge: the polynomial of I. Quilez, zero change beyond ``width``."""
    mix = np.maximum(width - np.abs(a - b), 0) / np.maximum(width, np.float32(1e-3))
    return np.minimum(a, b) - mix * mix * width * np.float32(0.25)
