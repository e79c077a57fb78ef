"""Embeddings of what an audit read, so that images that look alike to an encoder are found across parts and sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from monai_ssl_transfer.data.audit.pixels import middle_image
from monai_ssl_transfer.data.audit.records import Record
from monai_ssl_transfer.engines.embedding.encoder_settings import encoder_settings
from monai_ssl_transfer.views.windows import source_channels
from monai_ssl_transfer.weights.built import load_encoder

_BATCH = 16
_SIZE = 224


def record_embedder(encoder_weights: str | Path) -> Callable[[Sequence[Record]], np.ndarray]:
    """What turns records into embeddings: of a photograph the whole, of a scan its middle slice.

    Args:
        encoder_weights: ``encoder.safetensors``, or any file that `ssl-transfer weights inspect` knows.

    Raises:
        WeightsError: the file holds no encoder.
    """
    encoder = load_encoder(encoder_weights)

    @lru_cache(maxsize=2)
    def feeding(photographs: bool):  # type: ignore[no-untyped-def]
        settings = encoder_settings(encoder_weights, "", "rgb" if photographs else "windows", _SIZE, "token")
        return settings.to_channels(settings.channels), settings.image_size, source_channels(settings.channels)

    def prepared(record: Record) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(middle_image(record.picture))).float()
        photograph = pixels.ndim == 3
        to_channels, size, sources = feeding(photograph)
        image = pixels.permute(2, 0, 1)[None] if photograph else pixels[None, None].repeat(1, sources, 1, 1)
        image = functional.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
        seen: torch.Tensor = to_channels(image)
        wanted = int(encoder.card.in_channels)  # type: ignore[union-attr, arg-type]
        return seen.mean(1, keepdim=True) if wanted == 1 and seen.shape[1] != 1 else seen

    @torch.no_grad()
    def embed(records: Sequence[Record]) -> np.ndarray:
        parts = (records[start : start + _BATCH] for start in range(0, len(records), _BATCH))
        return np.concatenate([encoder(torch.cat([prepared(one) for one in part])).float().numpy() for part in parts])

    return embed
