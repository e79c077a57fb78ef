"""Antialiased crop and resize with a box per sample.

The filter is that of Pillow and torchvision (`antialias=True`): a triangle or a Keys cubic (a = -0.5), widened by the
shrink factor, cut at the edge of the crop and normalised. Both executors take their weights from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ssl_transfer.views.parameters import ViewParameters


@dataclass(frozen=True)
class AxisTaps:
    """Source positions and weights of each output position along one axis.

    Args:
        index: (B, S, K) int64 positions in the crop, 0 to length - 1.
        weight: (B, S, K) float32 weights that sum to 1 over K; unused places at the end are 0.
        count: (B,) int64 number of places that are used by any output position of the sample.
    """

    index: Tensor
    weight: Tensor
    count: Tensor


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_min(0)


def _cubic(x: Tensor) -> Tensor:
    x, a = x.abs(), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def axis_taps(length: Tensor, size: int, flip: Tensor, interpolation: str = "bilinear") -> AxisTaps:
    """Resampling weights from crops of `length` pixels to `size` pixels.

    Args:
        length: (B,) int64 length of each crop along the axis.
        size: output length.
        flip: (B,) bool: read the axis backwards.
        interpolation: "bilinear" or "bicubic".

    Returns:
        `AxisTaps` on the device of `length`.
    """
    radius, kernel = (2.0, _cubic) if interpolation == "bicubic" else (1.0, _triangle)
    place = torch.arange(size, dtype=torch.float64, device=length.device)[None]
    place = torch.where(flip[:, None], size - 1 - place, place)
    scale = (length.double() / size)[:, None]
    stretch = scale.clamp_min(1.0)
    centre = (place + 0.5) * scale
    low = (centre - radius * stretch + 0.5).long().clamp_min(0)
    high = torch.minimum((centre + radius * stretch + 0.5).long(), length[:, None])
    count = (high - low).amax(dim=1)
    offset = torch.arange(int(count.max()), device=length.device)
    weight = kernel((offset + low[..., None] - centre[..., None] + 0.5) / stretch[..., None])
    weight = torch.where(offset < (high - low)[..., None], weight, 0.0)
    total = weight[..., 0]
    for k in range(1, weight.shape[-1]):  # a plain order of summation: the result must not depend on the padding of K
        total = total + weight[..., k]
    index = torch.minimum(low[..., None] + offset, length[:, None, None] - 1)
    return AxisTaps(index, (weight / total[..., None]).float(), count)


def view_taps(
    parameters: ViewParameters, size: int, interpolation: str, device: torch.device
) -> tuple[AxisTaps, AxisTaps]:
    """Taps of the rows and of the columns of one view for a batch; flips are part of them.

    Args:
        parameters: crop boxes and flips of the view.
        size: side of the view.
        interpolation: "bilinear" or "bicubic".
        device: where the taps are computed.

    Returns:
        (rows, columns).
    """
    box, flip = torch.from_numpy(parameters.box).to(device), torch.from_numpy(parameters.flip).to(device)
    rows = axis_taps(box[:, 2], size, flip[:, 0], interpolation)
    return rows, axis_taps(box[:, 3], size, flip[:, 1], interpolation)


def crop_resize(image: Tensor, parameters: ViewParameters, size: int, interpolation: str = "bilinear") -> Tensor:
    """Crop, flip and resize every sample of a batch with its own box.

    Args:
        image: (B, C, H, W) of any real dtype.
        parameters: crop boxes and flips.
        size: side of the result.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (B, C, size, size) float32.
    """
    rows, columns = view_taps(parameters, size, interpolation, image.device)
    box = torch.from_numpy(parameters.box).to(image.device)
    batch = torch.arange(len(image), device=image.device)[:, None]
    source = image.permute(0, 2, 1, 3)
    index = rows.index + box[:, :1, None]
    shrunk = torch.zeros(len(image), size, image.shape[1], image.shape[3], device=image.device)
    for k in range(index.shape[-1]):
        shrunk += source[batch, index[..., k]].float() * rows.weight[:, :, k, None, None]
    index = columns.index + box[:, 1:2, None]
    result = torch.zeros(len(image), size, image.shape[1], size, device=image.device)
    for k in range(index.shape[-1]):
        place = index[:, None, None, :, k].expand(result.shape)
        result += shrunk.gather(3, place) * columns.weight[:, None, None, :, k]
    return result.permute(0, 2, 1, 3)
