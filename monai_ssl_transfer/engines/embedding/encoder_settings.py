"""How to feed an encoder, read from its card: whoever embeds images names a file and nothing else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise_frames
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.views.windows import HUToChannels, channel_windows, channels_count
from monai_ssl_transfer.weights import EncoderCard, read_encoder
from monai_ssl_transfer.weights.input_channels import kind_of, refuse_bgr

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderSettings:
    """What a bundle has to know to build an encoder and to feed it.

    Args:
        encoder_name: a name of ``networks.encoder_names()``.
        channels: "windows", "single", "neighbours" or "rgb".
        image_size: side in pixels to which images are resized.
        pooling: "token" or "mean".
        card: of the encoder; None where there is no file yet.
        file: that the card was read from.
    """

    encoder_name: str
    channels: str
    image_size: int
    pooling: str
    card: EncoderCard | None = None
    file: str = ""

    def to_channels(self, channels: str) -> nn.Module:
        """What turns images into the encoder's input.

        Args:
            channels: that the user wants.

        Returns:
            Maps (B, 1 or 3, H, W) in HU, or (B, 3, H, W) RGB from 0 to 255, to (B, C, H, W) float32.

        Raises:
            WeightsError: the encoder was pretrained on other channels or other HU windows.
        """
        card = self.card
        if card is not None and card.channels and kind_of(card.channels) == kind_of(channels) != "":
            if card.channels != channels:
                raise WeightsError(
                    f"{self.file} was pretrained on channels {card.channels}, not {channels}: leave out --channels."
                )
            windows = tuple((window.level, window.width) for window in channel_windows(channels))
            if card.windows != windows:
                raise WeightsError(
                    f"{self.file} was pretrained on the HU windows {card.windows}, but channels {channels} means "
                    f"{windows} in this version: use the version that made the encoder."
                )
        if channels != "rgb":
            return HUToChannels(channels)
        return FrameNormaliser() if card is None or not card.mean else FrameNormaliser(card.mean, card.std)


class FrameNormaliser(nn.Module):
    """RGB from 0 to 255 as an encoder was trained on it.

    Args:
        mean: per colour, of the scale from 0 to 1.
        std: per colour.
    """

    def __init__(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (..., 3, H, W) from 0..255 to (x / 255 - mean) / std."""
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return normalise_frames(frames)
        mean, std = (torch.tensor(values, device=frames.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (frames.float() / 255 - mean) / std


def encoder_settings(
    file: str | Path, encoder_name: str, channels: str, image_size: int, pooling: str
) -> EncoderSettings:
    """Settings of an encoder from its card; the values given here stand in for what the card does not say.

    An encoder of photographs sees three HU windows in place of its colours, and one of CT slices sees colours in place
    of its windows; both with a warning.

    Args:
        file: as for ``read_encoder``; where it does not exist (a bundle without weights) the values given here hold.
        encoder_name: a name of ``networks.encoder_names()``.
        channels: "windows", "single", "neighbours" or "rgb"; tells also what the bundle's images are.
        image_size: side in pixels.
        pooling: "token" or "mean".

    Raises:
        WeightsError: the file holds no encoder, or one that was converted to BGR.
    """
    if not Path(file).exists():
        return EncoderSettings(encoder_name, channels, image_size, pooling, file=str(file))
    card = read_encoder(file)[1]
    refuse_bgr(card, channels, file)
    if card.channels and kind_of(card.channels) == kind_of(channels):
        channels = card.channels
    else:
        if channels != "rgb" and card.in_channels == channels_count("single"):
            channels = "single"
        known = card.channels or "channels that its file does not name"
        logger.warning("%s was pretrained on %s and gets %s here", file, known, channels)
    return EncoderSettings(
        card.architecture, channels, card.image_size or image_size, card.pooling or pooling, card, str(file)
    )
