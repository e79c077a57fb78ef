"""The endoscope's camera: a wide-angle lens and its way through a generated organ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """Where the tip of the endoscope is and where it looks.

    Args:
        position: (x, y, z) in mm.
        rotation: columns are the picture's right, its down and the viewing direction; (3, 3).
        field_of_view: angle in degrees between the left and the right border of a square picture.
    """

    position: np.ndarray
    rotation: np.ndarray
    field_of_view: float = 110.0

    def rays(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Direction of every pixel for an equidistant lens, as endoscopes have it approximately.

        Returns:
            unit vectors, float32 (3, rows * columns), and their cosine with the viewing direction, float32 (N,).
        """
        half = max(rows, columns) / 2
        y, x = np.meshgrid(
            (np.arange(rows, dtype=np.float32) + 0.5 - rows / 2) / half,
            (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) / half,
            indexing="ij",
        )
        away = np.sqrt(x * x + y * y).ravel()
        angle = away * np.float32(np.radians(self.field_of_view / 2))
        side = np.sin(angle) / np.maximum(away, np.float32(1e-6))
        forward = np.cos(angle)
        local = np.stack([x.ravel() * side, y.ravel() * side, forward])
        return (self.rotation.astype(np.float32) @ local), forward

    def pose(self) -> np.ndarray:
        """Camera to world, homogeneous, float64 (4, 4)."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.position
        return pose


def look(position: np.ndarray, target: np.ndarray, roll: float = 0.0, field_of_view: float = 110.0) -> Camera:
    """A camera at one point that looks at another, turned about its axis by ``roll`` radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    aside = np.cross(np.array([0.0, 1.0, 0.0]) if abs(forward[1]) < 0.95 else np.array([1.0, 0.0, 0.0]), forward)
    right = aside / np.linalg.norm(aside)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    return Camera(position, np.stack([c * right + s * down, c * down - s * right, forward], 1), field_of_view)
