"""Noise of CT in HU: quantum noise that follows the patient and the kernel, and white electronic noise."""

from __future__ import annotations

import numpy as np

from monai_ssl_transfer.views.corruptions.ct_rays import WATER, coarse_square, paths, smeared

_SIDE = 96
_DIRECTIONS = 24
_REFERENCE = 300 * WATER
# Bowtie filter and modulation of the tube current take about half of the differences between rays away.
_UNCOMPENSATED = 0.5
# cycles/mm; the power spectrum f exp(-(f / a)^2) of a soft kernel has its maximum at 0.32
_KERNEL = 0.45
_LONGEST = 12.0


def quantum_noise(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], sigma: float
) -> np.ndarray:
    """A lower dose: noise that grows with what the rays had to pass, in the texture of a soft tissue kernel.

    Model: the variance of filtered back projection at a point is the mean over the rays through it of 1 / photons,
    that is of exp(c * path). Paths are computed in 24 directions; c = 0.5 stands for bowtie filter and tube current
    modulation. The texture is white noise through a ramp with a Gaussian roll-off. Slices are independent of each
    other; streaks are a corruption of their own.

    Args:
        volume: (Z, R, C) float32 HU.
        random: numbers of this volume.
        spacing: of slices, rows and columns, mm.
        sigma: SD in the middle of 30 cm of water, HU.
    """
    return np.stack(
        [one + sigma * noise_level(one, spacing[1:]) * _texture(one.shape, spacing[1:], random) for one in volume]
    )


def noise_level(hu: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """SD of quantum noise as a multiple of that in the middle of 30 cm of water, (R, C)."""
    square, pixel = coarse_square(hu, spacing, _SIDE)
    angles = np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS
    passed = np.exp(_UNCOMPENSATED * np.minimum(paths(square, pixel, angles), _LONGEST))
    return np.sqrt(smeared(passed, pixel, angles, hu.shape, spacing) / np.exp(_UNCOMPENSATED * _REFERENCE))


def _texture(shape: tuple[int, ...], spacing: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """Noise of SD 1 with the power spectrum of a soft tissue kernel."""
    frequency = np.hypot(np.fft.fftfreq(shape[0], spacing[0])[:, None], np.fft.rfftfreq(shape[1], spacing[1]))
    response = np.sqrt(frequency * np.exp(-((frequency / _KERNEL) ** 2)))
    noise = np.fft.irfft2(np.fft.rfft2(random.standard_normal(shape)) * response, shape)
    return (noise / max(float(noise.std()), 1e-9)).astype(np.float32)


def gaussian_noise(
    volume: np.ndarray, random: np.random.Generator, spacing: tuple[float, float, float], sigma: float
) -> np.ndarray:
    """White noise of SD `sigma` HU, the same everywhere: electronics, a sharp kernel."""
    return volume + np.float32(sigma) * random.standard_normal(volume.shape).astype(np.float32)
