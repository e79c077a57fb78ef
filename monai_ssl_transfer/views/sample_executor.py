"""Views of one sample at a time on the CPU: the arithmetic of `device_executor`, several times as fast on a core.

A core is fastest when a view stays in its cache, so every step works on one view of one sample. HU are resampled by two
sparse matrices that hold the very weights of `resampling`, RGB by torch's kernel for bytes (the one place where a value
is rounded: sources are 8-bit); blur, colour and HSV run in OpenCV on float32. A parity test holds this file to
`device_executor`. As no sample sees another, views are bitwise the same in any batch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from scipy.sparse import csr_array
from torch import Tensor

from monai_ssl_transfer.views.intensity import gaussian_kernel, window_factors
from monai_ssl_transfer.views.parameters import ViewParameters, normal_bank
from monai_ssl_transfer.views.recipes import ViewRecipe
from monai_ssl_transfer.views.resampling import axis_taps
from monai_ssl_transfer.views.sample_colour import finish_rgb
from monai_ssl_transfer.views.windows import CT_MEAN, CT_STD, HUWindow

Factors = tuple[np.ndarray, np.ndarray, np.ndarray]
_CT_SCALE, _CT_SHIFT = 1 / CT_STD, -CT_MEAN / CT_STD
_STRAIGHT = 0.02


def make_views(
    image: Tensor,
    recipe: Sequence[ViewRecipe],
    parameters: Sequence[ViewParameters],
    windows: tuple[HUWindow, ...],
    channels: int,
) -> list[Tensor]:
    """All views of a batch on the CPU, on as many threads as torch may use.

    Args:
        image: (B, C, H, W) int16 HU or uint8 RGB on the CPU.
        recipe: one entry per view.
        parameters: drawn parameters, one entry per view.
        windows: HU windows of the output channels; empty for RGB.
        channels: number of output channels.

    Returns:
        One float32 (B, channels, S, S) per view.
    """
    results = [torch.empty(len(image), channels, view.size, view.size) for view in recipe]
    arrays = [result.numpy() for result in results]
    factors = [window_factors(windows, p) for p in parameters] if windows else []

    def one_sample(i: int) -> None:
        if windows:
            slices = list(image[i].numpy())
            for view, p, f, out in zip(recipe, parameters, factors, arrays, strict=True):
                _ct_view(slices, view, p, f, i, out[i])
            return
        picture = _interleaved(image[i])
        for view, p, out in zip(recipe, parameters, arrays, strict=True):
            _rgb_view(picture, view, p, i, out[i])

    threads = min(torch.get_num_threads(), len(image))
    if threads == 1:
        for i in range(len(image)):
            one_sample(i)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one_sample, range(len(image))))
    return results


def _interleaved(image: Tensor) -> np.ndarray:
    """(3, H, W) as (H, W, 3) in memory; free for a channels_last batch."""
    turned = image.permute(1, 2, 0)
    return turned.numpy() if turned.is_contiguous() else cv2.merge(list(image.contiguous().numpy()))


@functools.lru_cache(maxsize=2048)
def resampling_matrix(length: int, size: int, flip: bool, interpolation: str) -> csr_array:
    """Sparse (size, length) matrix of the weights of `axis_taps`; crops have few lengths, so it is kept."""
    taps = axis_taps(torch.tensor([length]), size, torch.tensor([flip]), interpolation)
    index, weight = taps.index[0].to(torch.int32).numpy(), taps.weight[0].numpy()
    rows = np.arange(0, index.size + 1, index.shape[1], dtype=np.int32)
    return csr_array((weight.ravel(), index.ravel(), rows), shape=(size, length))


def crop_resize(image: np.ndarray, view: ViewRecipe, parameters: ViewParameters, sample: int) -> np.ndarray:
    """Crop, flip and resize one slice.

    Args:
        image: (H, W) of any real dtype.
        view: recipe, for size and interpolation.
        parameters: crop boxes and flips of the batch.
        sample: place in the batch.

    Returns:
        (S, S) float32.
    """
    top, left, height, width = parameters.box[sample].tolist()
    upside_down, mirrored = parameters.flip[sample].tolist()
    crop = image[top : top + height, left : left + width].astype(np.float32)
    rows = resampling_matrix(height, view.size, upside_down, view.interpolation)
    columns = resampling_matrix(width, view.size, mirrored, view.interpolation)
    return cv2.transpose(columns @ cv2.transpose(rows @ crop))


def crop_resize_rgb(picture: np.ndarray, view: ViewRecipe, parameters: ViewParameters, sample: int) -> np.ndarray:
    """Crop, flip and resize one 8-bit picture with torch's antialiased kernel for bytes: that of torchvision.

    Args:
        picture: (H, W, 3) uint8, contiguous.
        view: recipe, for size and interpolation.
        parameters: crop boxes and flips of the batch.
        sample: place in the batch.

    Returns:
        (S, S, 3) uint8: rounded, so up to half a grey level away from `device_executor`.
    """
    top, left, height, width = parameters.box[sample].tolist()
    upside_down, mirrored = parameters.flip[sample].tolist()
    crop = torch.from_numpy(picture[top : top + height, left : left + width]).permute(2, 0, 1)[None]
    size = (view.size, view.size)
    resized = functional.interpolate(crop, size, mode=view.interpolation, antialias=True, align_corners=False)
    # The kernel reads (H, W, 3) but gives three planes; OpenCV works on interleaved pixels.
    result = np.asarray(cv2.merge(list(resized[0].numpy())))
    if upside_down or mirrored:
        result = cv2.flip(result, -1 if upside_down and mirrored else int(mirrored))
    return result


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of (S, S) or (S, S, 3) float32; a sigma of 0 changes nothing."""
    if sigma == 0:
        return image
    taps = gaussian_kernel(sigma)
    return cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REFLECT_101)


def _ct_view(
    slices: Sequence[np.ndarray],
    view: ViewRecipe,
    parameters: ViewParameters,
    factors: Factors,
    sample: int,
    out: np.ndarray,
) -> None:
    start, sigma = int(parameters.noise_start[sample]), float(parameters.noise[sample])
    slopes, intercepts, tones = (f[sample].tolist() for f in factors)
    for number, one in enumerate(slices):
        hu = blur(crop_resize(one, view, parameters, sample), float(parameters.sigma[sample]))
        if sigma:
            begin = start + number * hu.size
            hu = cv2.scaleAdd(normal_bank()[begin : begin + hu.size].reshape(hu.shape), sigma, hu)
        for window in range(len(slopes)):
            # Either several windows of one slice or one window of several slices: one of the two numbers stays 0.
            _window(hu, slopes[window], intercepts[window], tones[window], out[number + window])


def _window(hu: np.ndarray, slope: float, intercept: float, tone: float, out: np.ndarray) -> None:
    """Window, tone curve and normalisation in as few passes as they need.

    With y the window in [0, 1], y / (y + (1 - y) k) is (1 - k / d) / (1 - k) with d = k + (1 - k) y, and d is a
    straight line of HU that is clamped between k and 1. Close to k = 1 that cancels, so there y itself is used.
    """
    if abs(1 - tone) < _STRAIGHT:
        _clamped_line(hu, slope * _CT_SCALE, intercept * _CT_SCALE + _CT_SHIFT, _CT_SHIFT, _CT_SCALE + _CT_SHIFT, out)
        if tone != 1:
            shown = (out - np.float32(_CT_SHIFT)) / np.float32(_CT_SCALE)
            np.add(shown / (shown + (1 - shown) * np.float32(tone)) * np.float32(_CT_SCALE), _CT_SHIFT, out=out)
        return
    bend = 1 - tone
    _clamped_line(hu, slope * bend, intercept * bend + tone, min(tone, 1.0), max(tone, 1.0), out)
    np.divide(np.float32(-tone / bend * _CT_SCALE), out, out=out)
    out += np.float32(_CT_SCALE / bend + _CT_SHIFT)


def _clamped_line(hu: np.ndarray, slope: float, intercept: float, low: float, high: float, out: np.ndarray) -> None:
    np.multiply(hu, np.float32(slope), out=out)
    out += np.float32(intercept)
    np.clip(out, np.float32(low), np.float32(high), out=out)


def _rgb_view(picture: np.ndarray, view: ViewRecipe, parameters: ViewParameters, sample: int, out: np.ndarray) -> None:
    resized = crop_resize_rgb(picture, view, parameters, sample)
    finish_rgb(resized, parameters, sample, functools.partial(blur, sigma=float(parameters.sigma[sample])), out)
