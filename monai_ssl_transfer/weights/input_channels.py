"""What an encoder was pretrained to see against what it is fed, where the two can be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.views.windows import channel_windows, normalisation
from monai_ssl_transfer.weights.card import EncoderCard

BGR = "bgr"
"""Photographs with blue first: of an encoder that was converted so; no bundle feeds them."""
KINDS = {"rgb": "photographs", BGR: "photographs", "windows": "CT", "single": "CT", "neighbours": "CT"}
SCALED_RANGES = {"z_score": (-5, 30), "percentile": (-2, 2)}
SCALED = tuple(SCALED_RANGES)
"""Channels of volumes without HU (MR), each scaled by its own voxels (`data.volumes.intensities`)."""


def kind_of(channels: str) -> str:
    """What images a channel layout is for; "" if it is none that is known here."""
    return KINDS.get(channels, "")


def refuse_bgr(card: EncoderCard, channels: str, file: str | Path) -> None:
    """Refuse an encoder of BGR images where the channels come in another order.

    Args:
        card: of the encoder.
        channels: what it is fed; "" where nobody says.
        file: of the encoder, for the message.

    Raises:
        WeightsError: if it was converted to BGR and is fed anything else.
    """
    if card.channels == BGR != channels:
        raise WeightsError(
            f"{file} was converted to BGR but gets {channels or 'channels that are not named'} here: give the file "
            "that it was made from, or turn it back by ssl-transfer weights convert --bgr."
        )


def refuse_hounsfield(file: str | Path | None, channels: str, allowed: bool = False) -> None:
    """Refuse an encoder of HU windows where it is fed volumes without HU, unless that is wanted.

    Args:
        file: of the encoder; None passes.
        channels: what it is fed.
        allowed: the user has said so.

    Raises:
        WeightsError: as said.
    """
    from monai_ssl_transfer.weights.read import read_encoder

    if file is None or str(file) in ("", "None", "none") or channels not in SCALED or allowed:
        return
    card = read_encoder(file)[1]
    if kind_of(card.channels) == "CT":
        raise WeightsError(
            f"{file} was pretrained on HU windows of CT ({card.channels}) but gets volumes without HU here, scaled by "
            f"{channels}: give another encoder, or run with --other_images True if that is meant."
        )


def compare_input(card: EncoderCard, channels: str, file: str | Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compare the card of an encoder with what it is fed.

    Another kind of images is what transfer is about and is allowed; the same kind in another form is a mistake.

    Args:
        card: of the encoder.
        channels: what it is fed: "windows", "single", "neighbours", "rgb" or "bgr"; "" where nobody says.
        file: of the encoder, for the messages.

    Returns:
        Notes and warnings for the report.

    Raises:
        WeightsError: for other channels or other HU windows of the same kind of images, and for BGR unless it is fed.
    """
    refuse_bgr(card, channels, file)
    if not channels:
        return (), ()
    if channels in SCALED:
        seen = card.channels or "images that its file does not name"
        return (), (f"it was pretrained on {seen} and gets volumes scaled by {channels} here, another kind of images",)
    if not card.channels:
        return (f"its file does not say what its channels are; they are {channels} here",), _other_scale(card, channels)
    if kind_of(card.channels) != kind_of(channels):
        return (), (f"it was pretrained on {card.channels} and gets {channels} here, another kind of images",)
    if card.channels != channels:
        raise WeightsError(
            f"{file} was pretrained on channels {card.channels} but gets {channels} here: run with "
            f"--channels {card.channels}, or give an encoder that was pretrained on {channels}."
        )
    windows = () if channels == BGR else tuple((window.level, window.width) for window in channel_windows(channels))
    if card.windows and card.windows != windows:
        raise WeightsError(
            f"{file} was pretrained on the HU windows {card.windows}, but channels {channels} means {windows} in this "
            "version: use the version that made the encoder."
        )
    return (), _other_scale(card, channels)


def _other_scale(card: EncoderCard, channels: str) -> tuple[str, ...]:
    """A warning where the values come on another scale than in the pretraining, as far as the card tells."""
    mean, std = normalisation("rgb" if channels == BGR else channels)
    if channels == BGR:
        mean, std = mean[::-1], std[::-1]
    if not card.mean or (_same(card.mean, mean) and _same(card.std, std)):
        return ()
    return (
        f"it was pretrained on images with mean {_listed(card.mean)} and SD {_listed(card.std)} taken out and gets "
        f"them with {_listed(mean)} and {_listed(std)} here",
    )


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(one, other, strict=True))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
