"""What disturbs MR magnitude volumes: thermal noise, an uneven coil, another contrast. 1 is the top of their range."""

from __future__ import annotations

import numpy as np
from numpy.polynomial.legendre import leggrid3d

_DEGREE = 3


def rician_noise(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], sigma: float
) -> np.ndarray:
    """Thermal noise of a magnitude image: sqrt((value + n1)^2 + n2^2) with two Gaussian numbers per voxel.

    Args:
        volume: (Z, R, C) float32, 1 at the top of the range.
        random: numbers of this volume.
        spacing: not used.
        sigma: SD of both numbers.

    Source: Gudbjartsson and Patz, Magnetic Resonance in Medicine 34 (1995) 910.
    """
    real, imaginary = (sigma * random.standard_normal(volume.shape, dtype=np.float32) for _ in range(2))
    return np.hypot(volume + real, imaginary)


def bias_field(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], amount: float
) -> np.ndarray:
    """A receive coil of uneven sensitivity: a smooth gain from exp(-amount) to exp(amount).

    The logarithm of the gain is a random Legendre polynomial of degree 3, as in NiftyNet and MONAI's RandBiasField,
    scaled so that its largest size is `amount`.
    """
    degrees = np.indices((_DEGREE + 1,) * 3).sum(axis=0)
    coefficients = np.where((degrees > 0) & (degrees <= _DEGREE), random.standard_normal(degrees.shape), 0)
    slices, rows, columns = (np.linspace(-1, 1, n) for n in volume.shape)
    field = leggrid3d(slices, rows, columns, coefficients)
    return volume * np.exp(amount * field / np.abs(field).max()).astype(np.float32)


def gamma(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], exponent: float
) -> np.ndarray:
    """Another contrast: value ** exponent, or its inverse for half of the volumes; the top of the range stays."""
    power = exponent if random.random() < 0.5 else 1 / exponent
    return np.sign(volume) * np.abs(volume) ** power
