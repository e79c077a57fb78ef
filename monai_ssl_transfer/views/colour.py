"""RGB operations on a batch, each sample with its own factors: colour jitter, grey, solarize."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.views.parameters import ViewParameters

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R 601 luma, as Pillow and torchvision use it."""
SOLARIZE_THRESHOLD = 128 / 255
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def jitter_colour(image: Tensor, parameters: ViewParameters) -> Tensor:
    """Brightness, contrast, saturation and hue in each sample's own order, clamped to [0, 1] after each.

    Args:
        image: (B, 3, S, S) float32 in [0, 1].
        parameters: factors and orders; samples with `jitter` False are left alone.

    Returns:
        (B, 3, S, S) float32 in [0, 1].
    """
    chosen = np.flatnonzero(parameters.jitter)
    if not len(chosen):
        return image
    index = torch.from_numpy(chosen).to(image.device)
    part, factors, order = image[index], parameters.factors[chosen], parameters.order[chosen]
    for step in range(order.shape[1]):
        operation = order[:, step]
        part = _affine_step(part, operation, factors)
        turned = np.flatnonzero((operation == HUE) & (factors[:, HUE] != 0))
        if len(turned):
            where = torch.from_numpy(turned).to(image.device)
            shift = torch.from_numpy(factors[turned, HUE].astype(np.float32)).to(image.device)
            part[where] = shift_hue(part[where], shift[:, None, None])
    return image.index_copy(0, index, part)


def _affine_step(image: Tensor, operation: np.ndarray, factors: np.ndarray) -> Tensor:
    """One of the linear operations for each sample: factor * x + (1 - factor) * (0, mean grey or grey)."""
    factor = np.where(operation == HUE, 1.0, np.take_along_axis(factors, operation[:, None], 1)[:, 0])
    rest = 1 - factor
    on = torch.from_numpy(
        np.stack([factor, rest * (operation == CONTRAST), rest * (operation == SATURATION)]).astype(np.float32)
    ).to(image.device)[..., None, None, None]
    grey = to_grey(image)
    return (image * on[0] + grey.mean(dim=(2, 3), keepdim=True) * on[1] + grey * on[2]).clamp_(0, 1)


def to_grey(image: Tensor) -> Tensor:
    """Luma of (B, 3, S, S), as (B, 1, S, S)."""
    red, green, blue = image.unbind(1)
    return (GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue)[:, None]


def shift_hue(image: Tensor, shift: Tensor) -> Tensor:
    """Turn the HSV hue; value and chroma of each pixel stay.

    Args:
        image: (B, 3, S, S) float32 in [0, 1].
        shift: turns, broadcasting with (B, S, S).

    Returns:
        (B, 3, S, S) float32 in [0, 1].
    """
    red, green, blue = image.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = torch.where(chroma > 0, chroma, 1.0)
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sextant = sextant + 6 * shift
    result = []
    for corner in (5, 3, 1):
        k = torch.remainder(sextant + corner, 6)
        result.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(result, dim=1)


def make_grey(image: Tensor, parameters: ViewParameters) -> Tensor:
    """Replace the samples that drew it by their luma in all three channels; (B, 3, S, S) in and out."""
    chosen = np.flatnonzero(parameters.grayscale)
    if not len(chosen):
        return image
    index = torch.from_numpy(chosen).to(image.device)
    return image.index_copy(0, index, to_grey(image[index]).expand(-1, 3, -1, -1))


def solarize(image: Tensor, parameters: ViewParameters) -> Tensor:
    """Invert what is as bright as 128/255 or brighter, in the samples that drew it; (B, 3, S, S) in and out."""
    chosen = np.flatnonzero(parameters.solarize)
    if not len(chosen):
        return image
    index = torch.from_numpy(chosen).to(image.device)
    part = image[index]
    return image.index_copy(0, index, torch.where(part >= SOLARIZE_THRESHOLD, 1 - part, part))
