"""Writing an encoder: the weights with their card inside, and the card again beside them for people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.key_maps import encoder_map

WEIGHTS_NAME = "encoder.safetensors"
CARD_NAME = "encoder.json"
CARD_KEY = "card"
ADAPTER_KEY = "adapter"
"""What the metadata of a file of an adapter (`adapter_file`) has in place of a card."""


def save_encoder(encoder: nn.Module, folder: str | Path, card: EncoderCard) -> Path:
    """Write `encoder.safetensors` and `encoder.json` into a folder.

    The weights get canonical names, whatever network holds them. Each file is written to a temporary name, flushed
    and renamed, so that a kill or a full disk leaves the previous one whole; since the card is also inside of the
    weights file, the two can never be mixed up.

    Args:
        encoder: an encoder of `build_encoder`, or a network around one (see `key_maps.encoder_map`).
        folder: made if it does not exist.
        card: `weights_hash` is filled in here.

    Returns:
        The path of `encoder.safetensors`.

    Raises:
        WeightsError: if the card contradicts the encoder, a value is not finite, or the disk is full.
    """
    folder = Path(folder)
    found = encoder_map(encoder)
    if (found.architecture, found.in_channels) != (card.architecture, card.in_channels):
        raise WeightsError(
            f"The card for {folder / WEIGHTS_NAME} says {card.architecture} with {card.in_channels} input channels but "
            f"the encoder is {found.architecture} with {found.in_channels}: correct the card."
        )
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in found.read(encoder).items()}
    check_finite(state, folder / WEIGHTS_NAME)
    card = replace(card, weights_hash=hash_tensors(state))
    write_tensors(folder / WEIGHTS_NAME, state, card.to_json(), folder / CARD_NAME)
    return folder / WEIGHTS_NAME


def check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """Refuse to write what no later step could use.

    Raises:
        WeightsError: for NaN or infinity.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{file} was not written because {name} holds NaN or infinity: "
                "the training has diverged, so lower the learning rate and start from an earlier checkpoint."
            )


def write_tensors(
    file: Path,
    state: dict[str, Tensor],
    card: str,
    card_file: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> None:
    """Write tensors with their card inside, and the card beside them if wanted; each file is whole at any time.

    Args:
        file: where to.
        state: the tensors.
        card: as JSON.
        card_file: where the card is written once more.
        more: further texts to put inside, by name.

    Raises:
        WeightsError: when the disk is full or cannot be written.
    """
    weights = to_safetensors(state, metadata={CARD_KEY: card, **(more or {})})
    try:
        write_durably(file, lambda stream: stream.write(weights))
        if card_file is not None:
            write_durably(card_file, lambda stream: stream.write(card.encode()))
    except OSError as error:
        raise WeightsError(
            f"{file.name} could not be written into {file.parent} ({error.strerror}): free space there; "
            "what was there before is whole."
        ) from error


def hash_tensors(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
