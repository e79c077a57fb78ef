"""The product of a pretraining run: the encoder alone with its card, written after every epoch."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import numpy as np
import timm
import torch
from ignite.engine import Events

from monai_ssl_transfer import __version__
from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.engines.pretraining import PretrainingTrainer
from monai_ssl_transfer.engines.transfer import save_model
from monai_ssl_transfer.methods.base import SSLMethod
from monai_ssl_transfer.views.recipes import Recipe
from monai_ssl_transfer.views.windows import channel_windows, channels_count, normalisation
from monai_ssl_transfer.weights import EncoderCard, save_encoder


def pretraining_card(
    architecture: str, channels: str, image_size: int, recipe: Recipe, store: Any, method: str
) -> EncoderCard:
    """The card of an encoder that is pretrained on CT slices or on frames of endoscopies.

    Args:
        architecture: a name of ``networks.encoder_names()``.
        channels: "windows", "single", "neighbours" or "rgb".
        image_size: side of the views in pixels.
        recipe: the views.
        store: the ``SliceStore``.
        method: name of the method.
    """
    mean, std = normalisation(channels)
    return EncoderCard(
        architecture=architecture,
        in_channels=channels_count(channels),
        channels=channels,
        windows=tuple((window.level, window.width) for window in channel_windows(channels)),
        mean=mean,
        std=std,
        image_size=image_size,
        method={"name": method},
        recipe={"views": [asdict(view) for view in recipe]},
        data=_summary(store),
        versions=_versions(),
        source_hash=store.content_hash,
        licence="weights: as the pretraining data allows; code: Apache-2.0",
    )


def _summary(store: Any) -> dict[str, Any]:
    if store.pixels == "rgb":
        groups = len(np.unique(store.patient_numbers()))
        labelled = int((store.index["label"] >= 0).sum())
        return {"modality": "endoscopy", "frames": len(store), "groups": groups, "labelled": labelled}
    parts, counts = np.unique(store.index["body_part"], return_counts=True)
    names = {BodyPart(int(part)).name.lower(): int(count) for part, count in zip(parts, counts, strict=True)}
    patients = len(np.unique(store.patient_numbers()))
    return {"modality": "CT", "slices": len(store), "series": store.series_count, "patients": patients, "parts": names}


def _versions() -> dict[str, str]:
    return {
        "monai_ssl_transfer": __version__,
        "monai": monai.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


class EncoderExporter:
    """Writes ``encoder.safetensors`` and ``encoder.json``, and ``model.pt`` with the plain state dict for MONAI.

    Args:
        method: its ``transfer_encoder`` is written.
        folder: the run's ``output_dir``.
        card: what the encoder is; the number of epochs is added to its ``method``.
    """

    def __init__(self, method: SSLMethod, folder: str | Path, card: EncoderCard) -> None:
        self.method = method
        self.folder = Path(folder)
        self.card = card

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer (on the first process only)."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.export)

    def export(self, engine: PretrainingTrainer) -> None:
        """Write the encoder as it is now."""
        self.card.method.update({"epochs": engine.state.epoch, "of_epochs": engine.state.max_epochs})
        encoder = self.method.transfer_encoder
        save_encoder(encoder, self.folder, self.card)
        save_model(encoder, self.folder / "model.pt")
