"""An encoder out of a file, ready to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import POOLINGS, build_encoder, mark_loaded
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.completeness import completeness
from monai_ssl_transfer.weights.converting.changes import ConvertOptions, change_shape, noted
from monai_ssl_transfer.weights.converting.reshape import POSITION
from monai_ssl_transfer.weights.load import read_encoder
from monai_ssl_transfer.weights.reading.foreign import shapes_of
from monai_ssl_transfer.weights.report import first_names


def load_encoder(
    file: str | Path, *, pooling: str | None = None, image_size: int | None = None, in_channels: int | None = None
) -> nn.Module:
    """Build the encoder that is in a file, with all of its weights.

    It maps `(B, C, H, W)` to `(B, D)` and has the canonical names (see `networks.build_encoder`). Its `card` says how
    the input must look: channels, windows or mean and std, and size.

    Args:
        file: as for `read_encoder`.
        pooling: what of a ViT is the embedding, "token" or "mean"; None: what the card says, else the class token.
        image_size: side in pixels that a ViT's position embedding is resampled to; None: as in the file. Other sizes
            work without it, resampled in every forward pass. Ignored by ResNets.
        in_channels: channels of the input; None: as in the file. Other channels change the first layer, see
            `reshape.change_channels`.

    Returns:
        The encoder in evaluation mode.

    Raises:
        WeightsError: if the file holds no whole encoder or an argument does not fit it.

    Example:
        >>> import tempfile, torch
        >>> from monai_ssl_transfer.networks import build_encoder
        >>> from monai_ssl_transfer.weights import EncoderCard, save_encoder
        >>> from monai_ssl_transfer.weights.built import load_encoder
        >>> file = save_encoder(build_encoder("resnet18"), tempfile.mkdtemp(), EncoderCard("resnet18"))
        >>> encoder = load_encoder(file)
        >>> with torch.no_grad():
        ...     embedding = encoder(torch.zeros(1, encoder.card.in_channels, 64, 64))
        >>> embedding.shape
        torch.Size([1, 512])
    """
    given, card = read_encoder(file)
    pooling = pooling or card.pooling or "token"
    if pooling not in POOLINGS:
        raise WeightsError(f"Unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}.")
    is_vit = POSITION in given
    if not is_vit and pooling != (card.pooling or "token"):
        raise WeightsError(
            f"{card.architecture} has no tokens to choose from, its embedding is the mean of its last feature map: "
            f"leave pooling {pooling!r} out."
        )
    options = ConvertOptions(in_channels=in_channels, image_size=image_size if is_vit else None)
    options.check()
    state, card, done = change_shape(given, card, options)
    card = replace(card, pooling=pooling, method=noted(card.method, done))
    return filled_encoder(state, card, file)


def filled_encoder(state: Mapping[str, Tensor], card: EncoderCard, file: str | Path) -> nn.Module:
    """Build the encoder of a card and fill it, completely.

    Args:
        state: its tensors, canonical.
        card: says what to build and is kept as its `card`.
        file: for messages.

    Returns:
        The encoder in evaluation mode.

    Raises:
        WeightsError: if the tensors are not those of the whole encoder.
    """
    encoder: Any = build_encoder(card.architecture, card.in_channels, card.image_size, pooling=card.pooling)
    wanted = encoder.state_dict()
    found = completeness(state, shapes_of(wanted))
    if found.different:
        raise WeightsError(
            f"{file} does not fill a {card.architecture} completely: {len(found.different)} tensors are missing, left "
            f"over or of another shape ({first_names(found.different)}); give the file of a whole encoder."
        )
    encoder.load_state_dict(wanted | dict(state))
    mark_loaded(encoder)
    encoder.card = card
    return encoder.eval()
