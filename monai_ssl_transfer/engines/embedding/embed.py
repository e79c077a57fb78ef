"""Whole slices or frames through an encoder: the embeddings that kNN judges and that inference writes to a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from monai_ssl_transfer.data.endoscopy.normalisation import normalise_frames
from monai_ssl_transfer.data.slices import SliceDataset
from monai_ssl_transfer.engines.embedding.table import EmbeddingTable, read_embeddings
from monai_ssl_transfer.views.windows import HUToChannels

__all__ = ["EmbeddingTable", "WholeSliceDataset", "embed", "read_embeddings"]


class WholeSliceDataset(Dataset):
    """Slices as an encoder sees them without any randomness: resized to a square, as channels.

    Args:
        store: a ``SliceStore`` or the path of one.
        channels: "windows", "single" or "neighbours" for CT slices, "rgb" for frames.
        image_size: side in pixels.
        subset: slice numbers; default all.
        to_channels: maps (1, 1 or 3, image_size, image_size) in HU or RGB of 0..255 to the encoder's input; default
            that of the package's own encoders.
    """

    def __init__(
        self,
        store: Any,
        channels: str,
        image_size: int,
        subset: np.ndarray | None = None,
        to_channels: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.slices = SliceDataset(store, channels, subset)
        usual = normalise_frames if channels == "rgb" else HUToChannels(channels)
        self.to_channels = usual if to_channels is None else to_channels
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One slice.

        Returns:
            ``"image"``: float32 (C, image_size, image_size); ``"index"``: its number in the store.
        """
        item = self.slices[position]
        side = (self.image_size, self.image_size)
        pixels = functional.interpolate(item["image"][None].float(), size=side, mode="bilinear", antialias=True)
        return {"image": self.to_channels(pixels)[0], "index": item["index"]}


@torch.no_grad()
def embed(encoder: nn.Module, dataset: Dataset, device: torch.device | str, batch_size: int = 64) -> torch.Tensor:
    """Embed a data set in evaluation mode; the encoder's own mode is put back afterwards.

    Args:
        encoder: gives (B, D).
        dataset: gives ``{"image": (C, H, W)}``.
        device: where the encoder lives.
        batch_size: slices per forward pass.

    Returns:
        (N, D) float32 on ``device``.
    """
    training = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    loader = DataLoader(dataset, batch_size, generator=torch.Generator())
    try:
        return torch.cat([encoder(batch["image"].to(device)).float() for batch in loader])
    finally:
        for module, mode in training:
            module.training = mode
