"""Random parameters of views: drawn on the CPU for a whole batch, from (seed, epoch, sample, view) alone.

Only operations that IEEE 754 rounds exactly are used on the drawn numbers (and look-up tables where a formula needs
`exp`): vectorised `exp` may differ in the last bit between the middle and the end of an array, which would make a
sample's view depend on its place in the batch.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.views.random import random_words, uniform
from monai_ssl_transfer.views.recipes import ColourJitter, HUJitter, ViewRecipe

_ATTEMPTS = 10
_WINDOWS = 3
_TABLE = 4096
NOISE_BANK = 1 << 20

# Places of the drawn numbers of a view. New ones go to the end: the others then keep their values.
_LAYOUT = {
    "area": _ATTEMPTS,
    "ratio": _ATTEMPTS,
    "place": 2,
    "flip": 2,
    "jitter": 1,
    "factors": 4,
    "order": 1,
    "grayscale": 1,
    "blur": 2,
    "solarize": 1,
    "level": _WINDOWS,
    "width": _WINDOWS,
    "tone": 1 + _WINDOWS,
    "noise": 3,
}
_COUNT = sum(_LAYOUT.values())


@dataclass(frozen=True)
class ViewParameters:
    """What is done to each of B samples to make one view; NumPy arrays with one row per sample.

    Args:
        box: (B, 4) int64 crop: top, left, height, width.
        flip: (B, 2) bool: up-down, left-right.
        jitter: (B,) bool: whether the colour or HU factors apply.
        factors: (B, 4) brightness, contrast, saturation, hue (RGB).
        order: (B, 4) order of the four colour operations (RGB).
        grayscale: (B,) bool (RGB).
        sigma: (B,) standard deviation of the blur in pixels; 0 = none.
        solarize: (B,) bool (RGB).
        level: (B, 3) level shift per window as a fraction of its width; 0 = none (CT).
        width: (B, 3) width factor per window; 1 = none (CT).
        tone: (B, 3) k of the tone curve per window; 1 = none (CT).
        noise: (B,) standard deviation in HU; 0 = none (CT).
        noise_start: (B,) int64 place in the bank of normal numbers (CT).
    """

    box: np.ndarray
    flip: np.ndarray
    jitter: np.ndarray
    factors: np.ndarray
    order: np.ndarray
    grayscale: np.ndarray
    sigma: np.ndarray
    solarize: np.ndarray
    level: np.ndarray
    width: np.ndarray
    tone: np.ndarray
    noise: np.ndarray
    noise_start: np.ndarray


def draw_parameters(
    recipe: tuple[ViewRecipe, ...], seed: int, epoch: int, sample: Tensor, size: Tensor
) -> list[ViewParameters]:
    """Draw the parameters of all views of a batch.

    Args:
        recipe: one entry per view.
        seed: run seed.
        epoch: epoch number.
        sample: (B,) int64 sample numbers.
        size: (B, 2) int64 true rows and columns of each sample.

    Returns:
        One `ViewParameters` per view.
    """
    view = torch.arange(len(recipe))
    numbers = uniform(seed, epoch, sample.cpu()[:, None], view[None], _COUNT).double().numpy()
    rows, columns = size.cpu().numpy().astype(np.int64).T
    return [_view_parameters(one, _split(numbers[:, v]), rows, columns) for v, one in enumerate(recipe)]


def _split(numbers: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(_LAYOUT.values()))[:-1]
    return dict(zip(_LAYOUT, np.split(numbers, ends, axis=1), strict=True))


def _between(number: np.ndarray, low: float, high: float) -> np.ndarray:
    return low + number * (high - low)


@functools.lru_cache(maxsize=64)
def _log_uniform_table(low: float, high: float) -> np.ndarray:
    place = (np.arange(_TABLE) + 0.5) / _TABLE
    return np.exp(math.log(low) + place * (math.log(high) - math.log(low)))


def _log_uniform(number: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return _log_uniform_table(*limits)[(number * _TABLE).astype(np.int64)]


@functools.lru_cache(maxsize=64)
def _tone_table(low: float, high: float) -> np.ndarray:
    return np.exp2(_log_uniform_table(low, high)) - 1


def _view_parameters(
    view: ViewRecipe, number: dict[str, np.ndarray], rows: np.ndarray, columns: np.ndarray
) -> ViewParameters:
    blur, sigma = number["blur"].T
    flip = number["flip"] < np.array([view.vertical_flip, view.flip])
    return ViewParameters(
        box=_crop_boxes(view, number, rows, columns),
        flip=flip,
        grayscale=number["grayscale"][:, 0] < view.grayscale,
        sigma=np.where(blur < view.blur, _between(sigma, *view.blur_sigma), 0.0),
        solarize=number["solarize"][:, 0] < view.solarize,
        **_colour_parameters(view.jitter, number),
        **_hu_parameters(view.jitter, number),
    )


def _crop_boxes(view: ViewRecipe, number: dict[str, np.ndarray], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Random resized crops by torchvision's rule: the first of ten draws that fits, else the largest central crop."""
    area = _between(number["area"], *view.scale) * (rows * columns)[:, None]
    ratio = _log_uniform(number["ratio"], view.ratio)
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (height > 0) & (width <= columns[:, None]) & (height <= rows[:, None])
    first = np.argmax(fits, axis=1)[:, None]
    height, width = np.take_along_axis(height, first, 1)[:, 0], np.take_along_axis(width, first, 1)[:, 0]
    top, left = (np.stack([rows - height + 1, columns - width + 1]) * number["place"].T).astype(np.int64)
    whole_height = np.clip(np.rint(columns / view.ratio[0]).astype(np.int64), 1, rows)
    whole_width = np.clip(np.rint(rows * view.ratio[1]).astype(np.int64), 1, columns)
    whole = np.stack([(rows - whole_height) // 2, (columns - whole_width) // 2, whole_height, whole_width], axis=1)
    return np.where(fits.any(axis=1)[:, None], np.stack([top, left, height, width], axis=1), whole)


@functools.lru_cache(maxsize=1)
def _orders() -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    return grid[[len(set(row)) == 4 for row in grid.tolist()]]


def _colour_parameters(jitter: ColourJitter | HUJitter | None, number: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    spread = [0.0] * 4
    if isinstance(jitter, ColourJitter):
        spread = [jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]
    middle = np.array([1.0, 1.0, 1.0, 0.0])
    low = np.array([max(0.0, 1 - s) for s in spread[:3]] + [-spread[3]])
    factors = low + number["factors"] * (middle + np.array(spread) - low)
    probability = 0.0 if jitter is None else jitter.probability
    order = _orders()[(number["order"][:, 0] * 24).astype(np.int64)]
    return {"jitter": number["jitter"][:, 0] < probability, "factors": factors, "order": order}


def _hu_parameters(jitter: ColourJitter | HUJitter | None, number: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = jitter if isinstance(jitter, HUJitter) else HUJitter(0.0, gamma_probability=0.0, noise_probability=0.0)
    jittered = number["jitter"] < options.probability
    toned = number["tone"][:, :1] < options.gamma_probability
    tone = _tone_table(*options.gamma)[(number["tone"][:, 1:] * _TABLE).astype(np.int64)]
    noisy, sigma, start = number["noise"].T
    return {
        "level": np.where(jittered, _between(number["level"], -options.level, options.level), 0.0),
        "width": np.where(jittered, _between(number["width"], 1 - options.width, 1 + options.width), 1.0),
        "tone": np.where(toned, tone, 1.0),
        "noise": np.where(noisy < options.noise_probability, _between(sigma, *options.noise), 0.0),
        "noise_start": (start * NOISE_BANK).astype(np.int64),
    }


@functools.lru_cache(maxsize=1)
def normal_bank() -> np.ndarray:
    """Standard normal numbers that noise is read from, at a random place for each sample and view.

    Returns:
        float32 (2 * NOISE_BANK,): NOISE_BANK numbers, twice in a row so that reading may run over the end.
    """
    words = random_words(0, 0, torch.arange(NOISE_BANK // 2), 0, 2).double().numpy()
    radius = np.sqrt(-2 * np.log((words[:, 0] + 1) / 2.0**32))
    angle = words[:, 1] * (2 * math.pi / 2.0**32)
    bank = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32).ravel()
    return np.concatenate([bank, bank])
