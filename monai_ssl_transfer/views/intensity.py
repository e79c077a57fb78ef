"""Blur, and the CT operations on a batch: noise in HU, random windows, tone curve, normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.views.parameters import ViewParameters, normal_bank
from monai_ssl_transfer.views.windows import CT_MEAN, CT_STD, HUWindow


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Gaussian taps from -radius to radius, radius = ceil(3 sigma), normalised; float32 (2 * radius + 1,)."""
    radius = math.ceil(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return (taps / taps.sum()).astype(np.float32)


def blur(image: Tensor, sigma: np.ndarray) -> Tensor:
    """Gaussian blur with a sigma per sample; the border is mirrored without repeating the edge pixel.

    Args:
        image: (B, C, S, S) float32.
        sigma: (B,) in pixels; 0 = leave the sample alone.

    Returns:
        (B, C, S, S) float32.
    """
    chosen = np.flatnonzero(sigma)
    if not len(chosen):
        return image
    kernels = [gaussian_kernel(float(s)) for s in sigma[chosen]]
    radius = max(len(k) for k in kernels) // 2
    padded = np.stack([np.pad(k, radius - len(k) // 2) for k in kernels])
    weight = torch.from_numpy(padded).to(image.device)[:, :, None, None, None]
    index = torch.from_numpy(chosen).to(image.device)
    part = image[index]
    for axis in (2, 3):
        part = _blur_axis(part, weight, radius, axis)
    return image.index_copy(0, index, part)


def _blur_axis(image: Tensor, weight: Tensor, radius: int, axis: int) -> Tensor:
    length = image.shape[axis]
    place = torch.arange(-radius, length + radius, device=image.device)
    # Mirror as often as needed: a small view may be narrower than the kernel.
    period = max(1, 2 * (length - 1))
    place = torch.remainder(place, period)
    extended = image.index_select(axis, torch.minimum(place, period - place).clamp_max(length - 1))
    result = torch.zeros_like(image)
    for k in range(2 * radius + 1):
        result += extended.narrow(axis, k, length) * weight[:, k]
    return result


def add_noise(hu: Tensor, parameters: ViewParameters) -> Tensor:
    """Add Gaussian noise with a standard deviation per sample; (B, C, S, S) HU in and out."""
    chosen = np.flatnonzero(parameters.noise)
    if not len(chosen):
        return hu
    count = math.prod(hu.shape[1:])
    bank = normal_bank()
    rows = [bank[start : start + count] * np.float32(s) for start, s in _noise_rows(parameters, chosen)]
    noise = torch.from_numpy(np.stack(rows)).to(hu.device).view(-1, *hu.shape[1:])
    return hu.index_add(0, torch.from_numpy(chosen).to(hu.device), noise)


def _noise_rows(parameters: ViewParameters, chosen: np.ndarray) -> Sequence[tuple[int, float]]:
    return list(zip(parameters.noise_start[chosen].tolist(), parameters.noise[chosen].tolist(), strict=True))


def window_factors(
    windows: Sequence[HUWindow], parameters: ViewParameters
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random windows as straight lines.

    Args:
        windows: the W windows of the channels.
        parameters: level shifts, width factors and tones per sample.

    Returns:
        slope, intercept (window = slope * HU + intercept) and tone, each float32 (B, W).
    """
    width = np.array([w.width for w in windows])
    level = np.array([w.level for w in windows]) + parameters.level[:, : len(windows)] * width
    slope = 1 / (width * parameters.width[:, : len(windows)])
    tone = parameters.tone[:, : len(windows)]
    return slope.astype(np.float32), (0.5 - level * slope).astype(np.float32), tone.astype(np.float32)


def window_and_normalise(hu: Tensor, windows: Sequence[HUWindow], parameters: ViewParameters) -> Tensor:
    """Random window, tone curve and normalisation.

    Args:
        hu: (B, C, S, S) float32 HU.
        windows: several windows for C = 1, or one window for every slice.
        parameters: level, width and tone per sample and window.

    Returns:
        (B, C or number of windows, S, S) float32.
    """
    factors = window_factors(windows, parameters)
    slope, intercept, tone = (torch.from_numpy(f).to(hu.device)[:, :, None, None] for f in factors)
    shown = (hu * slope + intercept).clamp_(0, 1)
    shown = shown / (shown + (1 - shown) * tone)
    return (shown - CT_MEAN) / CT_STD


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std per channel of (B, C, S, S)."""
    shape = (1, -1, 1, 1)
    centre, spread = (torch.tensor(v, device=image.device).view(shape) for v in (mean, std))
    return (image - centre) / spread
