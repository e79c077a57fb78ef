"""Small data sets without any fault, for tests to plant one in."""

from __future__ import annotations

from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
from PIL import Image

SHAPE = (40, 44, 10)  # as stored, columns, rows, slices
LPS = (-1, -1, 1)


def scan(seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A noisy body in air, (columns, rows, slices) int16 HU."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = x**2 + (y * 1.2) ** 2 < 0.7
    return np.where(body, rng.normal(40, 25, shape), rng.normal(-1000, 8, shape)).round().astype(np.int16)


def label(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Liver and tumour."""
    made = np.zeros(shape, np.uint8)
    made[12:25, 12:25, 3:8] = 1
    made[15:19, 15:19, 4:6] = 2
    return made


def affine(
    spacing: tuple[float, float, float] = (0.8, 0.8, 2.5), signs: tuple[int, int, int] = LPS, shift: float = 0.0
) -> np.ndarray:
    """Affine of a file that lies off the origin."""
    made = np.diag([*(a * b for a, b in zip(spacing, signs, strict=True)), 1.0])
    made[:3, 3] = [100 + shift, 120, -50]
    return made


def write(path: Path, voxels: np.ndarray, where: np.ndarray | None = None) -> Path:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine() if where is None else where), path)
    return path


def lits(folder: Path, cases: int = 3, first: int = 0) -> Path:
    """A LiTS folder of different patients."""
    for case in range(first, first + cases):
        write(folder / f"volume-{case}.nii", scan(case))
        write(folder / f"segmentation-{case}.nii", label())
    return folder


def photograph(seed: int) -> np.ndarray:
    """Blobs of colour, (96, 120, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 230, (12, 14, 3)).astype(np.float32)
    return cv2.resize(coarse, (120, 96), interpolation=cv2.INTER_CUBIC).clip(30, 250).astype(np.uint8)


def mask() -> np.ndarray:
    """A disc, (96, 120) uint8."""
    return cv2.circle(np.zeros((96, 120), np.uint8), (60, 50), 20, 255, -1)


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def polyps(folder: Path, cases: int = 5) -> Path:
    """Photographs and masks in Kvasir-SEG's layout, as PNG."""
    for case in range(cases):
        save(folder / "images" / f"p{case}.png", photograph(case))
        save(folder / "masks" / f"p{case}.png", mask())
    return folder
