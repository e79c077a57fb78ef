"""The product of a pretraining run: the encoder alone with its card, written after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events

from monai_ssl_transfer.data.store_summary import store_summary
from monai_ssl_transfer.engines.checkpoints.fingerprint import source_of
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.engines.records.versions import versions
from monai_ssl_transfer.engines.transfer.fine_tuning import save_model
from monai_ssl_transfer.methods.base import SSLMethod
from monai_ssl_transfer.networks.encoders import pooling_of
from monai_ssl_transfer.views.recipes import Recipe
from monai_ssl_transfer.views.windows import channel_windows, channels_count, normalisation
from monai_ssl_transfer.weights import EncoderCard, save_encoder, save_projection_head

LICENCE = "weights: as the pretraining data allows; code: Apache-2.0"
"""What the card of every pretraining says first."""
FURTHER = "; start: "
"""What stands between that and the licence of what the encoder began with."""


def pretraining_card(
    architecture: str,
    channels: str,
    image_size: int,
    recipe: Recipe,
    store: Any,
    method: str,
    encoder_weights: str | Path | None = None,
) -> EncoderCard:
    """The card of an encoder that is pretrained on CT slices or on frames of endoscopies.

    Args:
        architecture: a name of ``networks.encoder_names()``.
        channels: "windows", "single", "neighbours" or "rgb".
        image_size: side of the views in pixels.
        recipe: the views.
        store: the ``SliceStore``.
        method: name of the method.
        encoder_weights: file that the encoder started from, if any.
    """
    source = source_of(encoder_weights)
    mean, std = normalisation(channels)
    return EncoderCard(
        architecture=architecture,
        in_channels=channels_count(channels),
        channels=channels,
        windows=tuple((window.level, window.width) for window in channel_windows(channels)),
        mean=mean,
        std=std,
        image_size=image_size,
        method={"name": method} | ({} if source is None else {"started_from": source}),
        recipe={"views": [asdict(view) for view in recipe]},
        data=store_summary(store),
        versions=versions(),
        source_hash=store.content_hash,
        licence=_licence_after(LICENCE, source),
    )


def _licence_after(own: str, source: Mapping[str, Any] | None) -> str:
    """The licence of weights that began with others: theirs stays in the text, however often it is passed on."""
    earlier = (source or {}).get("licence")
    return f"{own}{FURTHER}{earlier}" if earlier else own


class EncoderExporter:
    """Writes ``encoder.safetensors`` and ``encoder.json``, and ``model.pt`` with the plain state dict for MONAI.

    A method whose projection head fine-tuning can begin in also leaves ``projection_head.safetensors``.

    Args:
        method: its ``transfer_encoder`` is written.
        folder: the run's ``output_dir``.
        card: what the encoder is; its pooling is added; epochs, options and an earlier run to its ``method``.
    """

    def __init__(self, method: SSLMethod, folder: str | Path, card: EncoderCard) -> None:
        self.method = method
        self.folder = Path(folder)
        self.card = card

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer (on the first process only)."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.export)

    def _facts(self, engine: PretrainingTrainer) -> dict[str, Any]:
        """How far the run is, where it began, and the method's options."""
        facts = {
            "epochs": engine.state.epoch,
            "of_epochs": engine.state.max_epochs,
            "options": self.method.extra_repr(),
        }
        if engine.continued_from is not None:
            facts |= {"continued_from": engine.continued_from, "earlier_epochs": engine.epoch_offset}
        return facts

    def export(self, engine: PretrainingTrainer) -> None:
        """Write the encoder as it is now."""
        self.card.method.update(self._facts(engine))
        encoder = self.method.transfer_encoder
        licence = _licence_after(self.card.licence, engine.continued_from)
        file = save_encoder(encoder, self.folder, replace(self.card, pooling=pooling_of(encoder), licence=licence))
        if (head := self.method.continued_head) is not None:
            save_projection_head(head, file)
        save_model(encoder, self.folder / "model.pt")
