"""The encoder that is probed: from a file with its card, or with random weights; frozen, with its own normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_ssl_transfer.engines.embedding.encoder_settings import EncoderSettings, FrameNormaliser, encoder_settings
from monai_ssl_transfer.engines.embedding.features import LAST_BLOCKS, EncoderFeatures
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.evaluation.probes.task import SCRATCH, EncoderSource
from monai_ssl_transfer.networks.encoders import build_encoder, encoder_spec, pooling_of
from monai_ssl_transfer.views.windows import channel_windows, channels_count
from monai_ssl_transfer.weights import encoder_facts, load_encoder
from monai_ssl_transfer.weights.read import existing_path
from monai_ssl_transfer.weights.save import hash_tensors


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that only embeds.

    Args:
        network: gives embeddings and, of a ViT, its last blocks.
        channels: what it is fed: "windows", "single", "neighbours" or "rgb".
        to_channels: turns HU or RGB of 0..255 into its input.
        identity: what its embeddings depend on, as plain values.
        facts: the same and where it is from, for people.
    """

    network: EncoderFeatures
    channels: str
    to_channels: nn.Module
    identity: dict[str, Any]
    facts: dict[str, Any]


class GreyMean(nn.Module):
    """One channel for encoders of one: the mean of the normalised colours, as the bundles feed them.

    Args:
        to_channels: normalises RGB of 0..255.
    """

    def __init__(self, to_channels: FrameNormaliser) -> None:
        super().__init__()
        self.to_channels = to_channels

    def forward(self, frames: Tensor) -> Tensor:
        """Map (..., 3, H, W) to (..., 1, H, W)."""
        grey: Tensor = self.to_channels(frames).mean(dim=-3, keepdim=True)
        return grey


def frozen_encoder(
    source: EncoderSource, channels: str, stated: bool, image_size: int, grey: bool = False
) -> FrozenEncoder:
    """Build the encoder of a task.

    Args:
        source: which one.
        channels: what the bundle feeds, "rgb" or channels of CT.
        stated: whether the user asked for these channels; the encoder's card chooses between those of CT otherwise.
        image_size: side in pixels of the task's images.
        grey: whether random weights are for photographs as one channel.

    Raises:
        WeightsError: the file holds no whole encoder, or one that cannot see these images.
    """
    if source.file is None:
        settings = EncoderSettings(source.architecture, channels, image_size, "token", file=source.name)
        _check_size(source.architecture, image_size, source.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            encoder = build_encoder(source.architecture, 1 if grey else channels_count(channels), image_size)
    else:
        settings = encoder_settings(existing_path(source.file), "", channels, image_size, "")
        _check_size(settings.encoder_name, image_size, source.name)
        encoder = load_encoder(source.file)
    fed = channels if stated else settings.channels
    to_channels = _normalisation(settings, fed, grey)
    identity = {
        "tensors_sha256": hash_tensors(encoder.state_dict()),
        "architecture": settings.encoder_name,
        "pooling": pooling_of(encoder),
        "last_blocks": LAST_BLOCKS,
        "input": _input_text(fed, to_channels),
    }
    network = EncoderFeatures(encoder, settings.encoder_name)
    return FrozenEncoder(network, fed, to_channels, identity, {"name": source.name, **identity, **_origin(source)})


def _normalisation(settings: EncoderSettings, channels: str, grey: bool) -> nn.Module:
    """What turns images into the encoder's input, by its card.

    Raises:
        WeightsError: other channels of CT or other HU windows than in pretraining, or another number of channels.
    """
    card = settings.card
    wanted = (1 if grey else channels_count(channels)) if card is None else card.in_channels
    if channels == "rgb" and wanted == 1:
        if card is None or len(card.mean) != 1:  # none that is known
            return GreyMean(FrameNormaliser())
        return GreyMean(FrameNormaliser(card.mean * 3, card.std * 3))
    if wanted != channels_count(channels):
        raise WeightsError(
            f"{settings.file} takes {wanted} channels, but images as '{channels}' have {channels_count(channels)}: "
            "convert it by ssl-transfer weights convert --in_channels, or set other channels."
        )
    return settings.to_channels(channels)


def _check_size(architecture: str, image_size: int, name: str) -> None:
    spec = encoder_spec(architecture)
    if spec.family == "vit" and image_size % spec.patch_size:
        raise WeightsError(
            f"{name} has patches of {spec.patch_size} pixels, of which image_size {image_size} is no multiple: set "
            f"image_size={max(1, round(image_size / spec.patch_size)) * spec.patch_size}."
        )


def _input_text(channels: str, to_channels: Any) -> dict[str, Any]:
    if isinstance(to_channels, GreyMean):
        return {**_input_text(channels, to_channels.to_channels), "channels": "mean of rgb"}
    if channels == "rgb":
        return {"channels": channels, "mean": list(to_channels.mean), "std": list(to_channels.std)}
    return {"channels": channels, "windows": [[one.level, one.width] for one in channel_windows(channels)]}


def _origin(source: EncoderSource) -> dict[str, Any]:
    if source.file is None:
        return {"file": None, "initialisation": SCRATCH, "seed": source.seed}
    facts = encoder_facts(source.file)
    method = facts.card.method.get("name", "")
    return {"file": Path(source.file).name, "file_sha256": facts.sha256, "source": facts.source, "method": method}
