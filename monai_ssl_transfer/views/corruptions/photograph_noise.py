"""Noise of photographs: made at a longer side of 512, as a sensor's grain that does not shrink with the file's size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from skimage.util import random_noise

from monai_ssl_transfer.views.corruptions.fields import grain_size, resized


def gaussian_noise(frame: np.ndarray, random: np.random.Generator, sigma: float) -> np.ndarray:
    """Electronic noise: the same everywhere, colours apart.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: numbers of this image.
        sigma: SD as share of the range.
    """
    return _with_grain(frame, lambda x: random_noise(x, "gaussian", rng=random, clip=False, var=sigma**2))


def poisson_noise(frame: np.ndarray, random: np.random.Generator, photons: float) -> np.ndarray:
    """Shot noise: the variance is the brightness; `photons` reach a pixel of full brightness."""
    return _with_grain(frame, lambda x: random.poisson(x * photons) / photons)


def speckle_noise(frame: np.ndarray, random: np.random.Generator, sigma: float) -> np.ndarray:
    """Multiplicative noise: the SD is `sigma` times the brightness."""
    return _with_grain(frame, lambda x: random_noise(x, "speckle", rng=random, clip=False, var=sigma**2))


def rician_noise(frame: np.ndarray, random: np.random.Generator, sigma: float) -> np.ndarray:
    """Noise of an MR magnitude picture: sqrt((value + n1)^2 + n2^2), so that black air becomes grey.

    A magnitude picture has one value per pixel, so that all colours get the same n1 and n2.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: numbers of this image.
        sigma: SD of n1 and n2 as share of the range.
    """

    def noisy(scene: np.ndarray) -> np.ndarray:
        real, imaginary = sigma * random.standard_normal((2, *scene.shape[:2], 1))
        return np.hypot(scene + real, imaginary)

    return _with_grain(frame, noisy)


def _with_grain(frame: np.ndarray, noisy: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    small = np.clip(resized(frame, grain_size(frame.shape)), 0, 1)
    noise = (noisy(small) - small).astype(np.float32)
    return frame + resized(noise, frame.shape[:2])
