"""Whole slices or frames through an encoder: the embeddings that kNN judges and that inference writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Evaluator
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from monai_ssl_transfer.data.endoscopy.normalisation import normalise_frames
from monai_ssl_transfer.data.slices import SliceDataset
from monai_ssl_transfer.views.windows import HUToChannels


class WholeSliceDataset(Dataset):
    """Slices as an encoder sees them without any randomness: resized to a square, as channels.

    Args:
        store: a ``SliceStore`` or the path of one.
        channels: "windows", "single" or "neighbours" for CT slices, "rgb" for frames.
        image_size: side in pixels.
        subset: slice numbers; default all.
    """

    def __init__(self, store: Any, channels: str, image_size: int, subset: np.ndarray | None = None) -> None:
        self.slices = SliceDataset(store, channels, subset)
        self.to_channels = normalise_frames if channels == "rgb" else HUToChannels(channels)
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


class EmbeddingWriter:
    """Writes the embeddings of an evaluator to ``embeddings.npy`` (N, D) float32, in the order of the store.

    Args:
        folder: made if it does not exist.
        count: number of slices N.
    """

    def __init__(self, folder: str | Path, count: int) -> None:
        self.path = Path(folder) / "embeddings.npy"
        self.count = count
        self._rows: np.memmap | None = None
        self._next = 0

    def attach(self, engine: Evaluator) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def write(self, engine: Evaluator) -> None:
        """Append the batch; memory stays that of one batch."""
        rows = engine.state.output["pred"].detach().float().cpu().numpy()
        if self._rows is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shape = (self.count, rows.shape[1])
            self._rows = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.float32, shape=shape)
        self._rows[self._next : self._next + len(rows)] = rows
        self._next += len(rows)

    def close(self, _: Evaluator) -> None:
        """Flush to the disk."""
        if self._rows is not None:
            self._rows.flush()
