"""Which patches are hidden: random patches (MAE) and blocks (DINOv2), drawn per image by arithmetic.

An image's mask depends on the seed, the epoch and the image's number alone, so that it is the same in every batch, on
every rank and in every piece of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys
from monai_ssl_transfer.views.random import uniform

MASK_VIEW = 1000
"""First view number of the generator that masks draw from; view recipes number their views from 0."""


@dataclass(frozen=True)
class BlockMasking:
    """How DINOv2 hides blocks of patches; the defaults are those of its code (`ssl_default_config.yaml`, masking.py).

    Args:
        probability: share of views with a mask.
        least: smallest share of a masked view's patches to hide.
        most: largest share of a masked view's patches to hide.
        smallest_block: patches in the smallest block.
        aspect: smallest height over width of a block; the largest is its inverse.
        attempts: blocks that are tried for each view.
    """

    probability: float = 0.5
    least: float = 0.1
    most: float = 0.5
    smallest_block: int = 4
    aspect: float = 0.3
    attempts: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or not 0 <= self.least <= self.most < 1 or not 0 < self.aspect <= 1:
            raise TrainingError(
                f"{self} is no way to mask: probability and aspect are at most 1, and 0 <= least <= most < 1."
            )


def require_keys(method: str, keys: SampleKeys | None) -> SampleKeys:
    """The keys that masks are drawn from.

    Raises:
        TrainingError: if there are none.
    """
    if keys is None:
        raise TrainingError(
            f"{method} draws masks: call it as method(views, progress, SampleKeys(seed, epoch, index))."
        )
    return keys


def shuffled_patches(keys: SampleKeys, patches: int) -> Tensor:
    """Random order of each image's patches; MAE sees the first quarter (He et al. 2021, arXiv 2111.06377, section 3).

    Args:
        keys: of B images.
        patches: number N of patches.

    Returns:
        `(B, N)` int64, a permutation in each row.
    """
    return uniform(keys.seed, keys.epoch, keys.sample, MASK_VIEW, patches).argsort(dim=1, stable=True)


def block_masks(keys: SampleKeys, views: int, grid: tuple[int, int], options: BlockMasking | None = None) -> Tensor:
    """Union of random rectangles in each view, as in DINOv2's code (after BEiT, arXiv 2106.08254, algorithm 1).

    Rectangles are tried one after the other: each of the size of what is still to be hidden or smaller, kept if it
    hides something and not too much. All views are done at once. Two things differ from the original, both so that no
    other image matters: each view is masked with the given probability (there exactly that share of a batch), and
    shares of hidden patches are uniform (there spread evenly over a batch). The original gives up after 10 tries in a
    row; here so many are made in all that hardly a patch is left.

    Args:
        keys: of B images.
        views: number of views; every one has its own mask.
        grid: rows and columns of patches.
        options: probability, shares and shapes.

    Returns:
        `(views * B, rows, columns)` bool, view after view, true where hidden; at most `int(most * patches)` are.
    """
    options = options or BlockMasking()
    numbers = MASK_VIEW + 1 + torch.arange(views, device=keys.sample.device)
    draws = uniform(keys.seed, keys.epoch, keys.sample, numbers[:, None], 2 + 4 * options.attempts).flatten(0, 1)
    share = options.least + (options.most - options.least) * draws[:, 1]
    left = (share * grid[0] * grid[1]).floor() * (draws[:, 0] < options.probability)
    hidden = torch.zeros(len(draws), *grid, dtype=torch.bool, device=draws.device)
    areas, stretch, places = draws[:, 2:].unflatten(1, (-1, 4)).split((1, 1, 2), dim=2)
    root = torch.exp((stretch - 0.5) * -math.log(options.aspect))
    sides = torch.cat([root, 1 / root], dim=2)
    for attempt in range(options.attempts):
        smallest = left.clamp(max=options.smallest_block)
        area = smallest + areas[:, attempt, 0] * (left - smallest)
        size = (area.sqrt()[:, None] * sides[:, attempt]).round()
        block = _rectangles(size, places[:, attempt], grid) & ~hidden
        new = block.sum((1, 2))
        new = new * (new <= left)
        hidden |= block & (new > 0)[:, None, None]
        left = left - new
    return hidden


def _rectangles(size: Tensor, place: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rectangles `(B, rows, columns)` of size `(B, 2)` at a place `(B, 2)` from 0 to 1; none that span the grid."""
    inside = []
    for axis, length in enumerate(grid):
        side = size[:, axis : axis + 1]
        start = (place[:, axis : axis + 1] * (length - side + 1)).floor()
        patch = torch.arange(length, device=size.device)
        inside.append((patch >= start) & (patch < start + side) & (side < length))
    return inside[0][:, :, None] & inside[1][:, None, :]
