"""`BatchedViews`: the random views of a batch, each sample with its own parameters, on the device of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.views import device_executor, sample_executor
from monai_ssl_transfer.views.parameters import NOISE_BANK, draw_parameters
from monai_ssl_transfer.views.recipes import ColourJitter, HUJitter, ViewRecipe
from monai_ssl_transfer.views.windows import channel_windows, channels_count, source_channels


class BatchedViews(nn.Module):
    """Random views of CT slices or RGB pictures for self-supervised learning.

    Everything random is a function of (seed, epoch, sample, view): a sample's views are the same in any batch, at any
    place in it, with any padding, in any worker and on any rank.

    Args:
        recipe: one `ViewRecipe` per view, as `recipes.recipe()` gives it.
        channels: "windows", "single" or "neighbours" for CT in HU; "rgb" for pictures.
        seed: seed of the run.
    """

    def __init__(self, recipe: Sequence[ViewRecipe], channels: str = "windows", seed: int = 0) -> None:
        super().__init__()
        self.recipe = tuple(recipe)
        self.channels = channels
        self.seed = seed
        self.windows = channel_windows(channels)
        self.in_channels = source_channels(channels)
        self.out_channels = channels_count(channels)
        self._check_recipe()

    def _check_recipe(self) -> None:
        wrong = HUJitter if self.channels == "rgb" else ColourJitter
        for view in self.recipe:
            colour_only = self.channels != "rgb" and (view.grayscale or view.solarize)
            if isinstance(view.jitter, wrong) or colour_only:
                domain = "rgb" if self.channels == "rgb" else "ct"
                raise TrainingError(
                    f"the recipe does not fit channels '{self.channels}': use recipe(method, domain='{domain}')."
                )
            if self.in_channels * view.size**2 > NOISE_BANK:
                raise TrainingError(f"views of {view.size} pixels are too large: use at most 591.")

    def forward(self, image: Tensor, size: Tensor | None, sample: Tensor, epoch: int) -> list[Tensor]:
        """Make all views of a batch.

        Args:
            image: (B, 1 or 3, H, W) int16 HU, or (B, 3, H, W) uint8 RGB; samples may be padded at bottom and right.
            size: (B, 2) int64 true rows and columns, or None when nothing is padded.
            sample: (B,) int64 number of each sample in its data set.
            epoch: epoch number from 0.

        Returns:
            One float32 (B, C, S, S) per view, normalised, on the device of `image`.

        Raises:
            DataError: when the batch does not have the shape or dtype that the channels need.
        """
        if size is None:
            size = torch.tensor(image.shape[2:]).expand(len(image), 2)
        self._check_batch(image, size, sample)
        with torch.no_grad():
            parameters = draw_parameters(self.recipe, self.seed, epoch, sample, size)
            if image.device.type == "cpu":
                return sample_executor.make_views(image, self.recipe, parameters, self.windows, self.out_channels)
            return device_executor.make_views(image, self.recipe, parameters, self.windows)

    def _check_batch(self, image: Tensor, size: Tensor, sample: Tensor) -> None:
        dtype = torch.uint8 if self.channels == "rgb" else torch.int16
        if image.ndim != 4 or image.shape[1] != self.in_channels or image.dtype != dtype:
            raise DataError(
                f"channels '{self.channels}' needs a batch (B, {self.in_channels}, H, W) of {dtype}, "
                f"got {tuple(image.shape)} of {image.dtype}: load the images with the same channels."
            )
        if size.shape != (len(image), 2) or sample.shape != (len(image),):
            raise DataError(
                f"a batch of {len(image)} needs sizes ({len(image)}, 2) and sample numbers ({len(image)},), "
                f"got {tuple(size.shape)} and {tuple(sample.shape)}: collate them with the images."
            )
        limit = torch.tensor(image.shape[2:], device=size.device)
        if bool(((size < 1) | (size > limit)).any()):
            raise DataError(
                f"a true size lies outside the padded batch {tuple(image.shape[2:])}: collate sizes as (rows, columns)."
            )
