from __future__ import annotations

import pytest
import torch

from monai_ssl_transfer.data.mixed_stores import mixing_order
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.views.batched import BatchedViews
from monai_ssl_transfer.views.mixed import MixedViews
from monai_ssl_transfer.views.recipes import recipe


def test_ct_and_photographs_share_a_batch() -> None:
    """Every image's views are those that its own store's views make of it alone."""
    generator = torch.Generator().manual_seed(0)
    slices = torch.randint(-1000, 1000, (3, 1, 40, 40), generator=generator, dtype=torch.int16)
    frames = torch.randint(0, 256, (1, 3, 48, 30), generator=generator, dtype=torch.uint8)
    parts = [
        BatchedViews(recipe("dino", "ct", 32), "windows", seed=1),
        BatchedViews(recipe("dino", "rgb", 32), "rgb", seed=2),
    ]
    sizes = [torch.tensor([[40, 40]] * 3), torch.tensor([[48, 30]])]
    samples = [torch.tensor([5, 6, 7]), torch.tensor([5])]
    views = MixedViews(parts)([slices, frames], sizes, samples, 4)
    assert [tuple(view.shape) for view in views] == [(4, 3, 32, 32)] * 2 + [(4, 3, 16, 16)] * 8
    alone = [parts[0](slices, sizes[0], samples[0], 4), parts[1](frames, sizes[1], samples[1], 4)]
    order = torch.tensor(mixing_order([3, 1]))
    for number, view in enumerate(views):
        assert view.equal(torch.cat([alone[0][number], alone[1][number]])[order])


def test_views_that_cannot_stand_in_one_batch_are_refused() -> None:
    windows = BatchedViews(recipe("simclr", "ct", 32), "windows")
    for other in (BatchedViews(recipe("simclr", "ct", 32), "single"), BatchedViews(recipe("dino", "rgb", 32), "rgb")):
        with pytest.raises(TrainingError, match="--second_channels"):
            MixedViews([windows, other])
