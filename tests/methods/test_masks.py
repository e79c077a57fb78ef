"""Masks: how many, where, in which shape, and the same whatever else is in the batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods import BlockMasking, SampleKeys
from monai_ssl_transfer.methods.masks import MASK_VIEW, block_masks, shuffled_patches
from monai_ssl_transfer.views.random import uniform


def keys(images: int = 400, epoch: int = 3) -> SampleKeys:
    return SampleKeys(7, epoch, torch.arange(images))


def test_patches_are_shuffled_evenly() -> None:
    order = shuffled_patches(keys(), 16)
    assert torch.equal(order.sort(dim=1).values, torch.arange(16).expand(400, 16))
    seen = torch.zeros(16).index_add(0, order[:, :4].flatten(), torch.ones(1600))
    assert (seen - 100).abs().max() < 5 * math.sqrt(75)  # 400 draws with probability 1/4


def test_masks_do_not_depend_on_the_batch() -> None:
    chosen = torch.tensor([311, 5, 40])
    part = SampleKeys(7, 3, chosen)
    assert torch.equal(shuffled_patches(part, 49), shuffled_patches(keys(), 49)[chosen])
    views = block_masks(keys(), 2, (14, 14)).unflatten(0, (2, 400))
    assert torch.equal(block_masks(part, 2, (14, 14)).unflatten(0, (2, 3)), views[:, chosen])


def test_masks_differ_between_epochs_images_and_views() -> None:
    options = BlockMasking(probability=1.0)
    views = block_masks(keys(20), 2, (14, 14), options).flatten(1)
    later = block_masks(keys(20, epoch=4), 2, (14, 14), options).flatten(1)
    assert len(torch.cat([views, later]).unique(dim=0)) == 80
    assert not torch.equal(shuffled_patches(keys(), 49), shuffled_patches(keys(epoch=4), 49))


def plain_mask(draws: np.ndarray, grid: tuple[int, int], options: BlockMasking) -> np.ndarray:
    """Algorithm 1 of BEiT with DINOv2's conditions, one image, in loops."""
    hidden = np.zeros(grid, dtype=bool)
    if draws[0] >= options.probability:
        return hidden
    wanted = int((options.least + (options.most - options.least) * draws[1]) * grid[0] * grid[1])
    for attempt in range(options.attempts):
        u, v, a, b = draws[2 + 4 * attempt : 6 + 4 * attempt]
        left = wanted - hidden.sum()
        smallest = min(left, options.smallest_block)
        area = smallest + u * (left - smallest)
        aspect = math.exp((2 * v - 1) * math.log(1 / options.aspect))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= grid[0] or width >= grid[1]:
            continue
        top, side = int(a * (grid[0] - height + 1)), int(b * (grid[1] - width + 1))
        new = hidden.copy()
        new[top : top + height, side : side + width] = True
        if 0 < new.sum() - hidden.sum() <= left:
            hidden = new
    return hidden


@pytest.mark.parametrize("grid", [(14, 14), (10, 16), (4, 4)])
def test_blocks_are_those_of_the_algorithm(grid: tuple[int, int]) -> None:
    options = BlockMasking()
    masks = block_masks(keys(60), 2, grid, options)
    draws = torch.cat([uniform(7, 3, torch.arange(60), MASK_VIEW + 1 + view, 66) for view in (0, 1)]).double().numpy()
    assert np.array_equal(masks.numpy(), np.stack([plain_mask(row, grid, options) for row in draws]))


def test_share_of_masked_views_and_of_hidden_patches() -> None:
    counts = block_masks(keys(), 2, (14, 14)).sum((1, 2))
    masked = counts[counts > 0]
    assert abs(len(masked) / 800 - 0.5) < 5 * 0.5 / math.sqrt(800)
    assert masked.min() >= 0.9 * int(0.1 * 196)
    assert masked.max() <= int(0.5 * 196)
    assert abs(masked.float().mean() / 196 - 0.3) < 0.02
    certain = block_masks(keys(), 1, (14, 14), BlockMasking(probability=1.0, least=0.25, most=0.25)).sum((1, 2))
    assert certain.max() == 49
    assert (certain == 49).float().mean() > 0.95
    assert not block_masks(keys(), 1, (14, 14), BlockMasking(probability=0.0)).any()


def test_one_attempt_hides_one_rectangle() -> None:
    options = BlockMasking(probability=1.0, attempts=1)
    sizes = []
    for mask in block_masks(keys(), 1, (14, 14), options):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        if len(rows):
            height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
            assert int(mask.sum()) == height * width
            assert math.sqrt(0.3) * (height - 0.5) <= math.sqrt(1 / 0.3) * (width + 0.5)
            assert math.sqrt(0.3) * (width - 0.5) <= math.sqrt(1 / 0.3) * (height + 0.5)
            sizes.append(height / width)
    assert len(sizes) > 350
    assert min(sizes) < 0.5
    assert max(sizes) > 2


@pytest.mark.parametrize("wrong", [{"probability": 1.5}, {"least": 0.6}, {"most": 1.0}, {"aspect": 0.0}])
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match="no way to mask"):
        BlockMasking(**wrong)
