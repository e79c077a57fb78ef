"""`MixedViews`: the views of batches whose images come from several stores, each with a recipe of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_ssl_transfer.data.mixed_stores import mixing_order
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.views.batched import BatchedViews


class MixedViews(nn.Module):
    """Makes each store's views and puts them together, so that CT slices and photographs can share a batch.

    Args:
        parts: views of each store, in the stores' order; all give the same number of channels, views and pixels.

    Raises:
        TrainingError: when their views cannot stand in one batch.
    """

    def __init__(self, parts: Sequence[BatchedViews]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        shapes = [(part.out_channels, [view.size for view in part.recipe]) for part in parts]
        if any(shape != shapes[0] for shape in shapes):
            raise TrainingError(
                f"The stores' views differ (channels, sizes: {' and '.join(map(str, shapes))}) and cannot be mixed: "
                "choose --second_channels with as many channels, and the same recipe."
            )

    def forward(
        self, image: Sequence[Tensor], size: Sequence[Tensor], sample: Sequence[Tensor], epoch: int
    ) -> list[Tensor]:
        """Make all views of a batch.

        Args:
            image: of each store, as `BatchedViews` takes them.
            size: of each store (B_i, 2) int64.
            sample: of each store (B_i,) int64.
            epoch: epoch number from 0.

        Returns:
            One float32 (B, C, S, S) per view, B over all stores, in the order of `data.mixed_stores.mixing_order`.
        """
        batches = zip(self.parts, image, size, sample, strict=True)
        views = [part(images, sizes, samples, epoch) for part, images, sizes, samples in batches]
        order = torch.tensor(mixing_order([len(images) for images in image]), device=image[0].device)
        return [torch.cat(same)[order] for same in zip(*views, strict=True)]
