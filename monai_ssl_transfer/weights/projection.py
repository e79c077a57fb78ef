"""The first layers of a projection head beside their encoder, for fine-tuning that begins in the middle of the head."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.classification import projection_of
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.save import CARD_KEY, CARD_NAME, check_finite, hash_tensors, write_tensors

PROJECTION_NAME = "projection_head.safetensors"


@dataclass(frozen=True)
class ProjectionCard:
    """What the layers are and which encoder they belong to; travels inside the file.

    Args:
        architecture: of the encoder.
        method: name and options of the pretraining method, as in the encoder's card.
        layers: names of the modules in their order.
        hidden_dim: length of what they give.
        encoder_hash: `weights_hash` of the encoder's card.
        weights_hash: of the layers' own tensors.
    """

    architecture: str
    method: dict[str, Any]
    layers: tuple[str, ...]
    hidden_dim: int
    encoder_hash: str
    weights_hash: str


def save_projection_head(head: nn.Sequential, encoder_file: Path) -> Path:
    """Write `projection_head.safetensors` beside an encoder that was just saved.

    Args:
        head: the layers, the first of them linear.
        encoder_file: what `save_encoder` returned.

    Returns:
        The path of the file.

    Raises:
        WeightsError: if a value is not finite or the disk is full.
    """
    file = encoder_file.with_name(PROJECTION_NAME)
    beside = encoder_file.with_name(CARD_NAME)
    encoder = EncoderCard.from_json(beside.read_text(), str(beside))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    check_finite(state, file)
    card = ProjectionCard(
        architecture=encoder.architecture,
        method=encoder.method,
        layers=tuple(type(layer).__name__ for layer in head),
        hidden_dim=len(state["0.weight"]),
        encoder_hash=encoder.weights_hash,
        weights_hash=hash_tensors(state),
    )
    write_tensors(file, state, json.dumps(asdict(card), indent=2) + "\n")
    return file


def projection_weights(network: nn.Module, encoder_file: str | Path, encoder_hash: str) -> dict[str, Tensor]:
    """The tensors of the file beside an encoder for a network that begins in the middle of the head.

    Args:
        network: any network.
        encoder_file: the encoder's file, or the folder with it.
        encoder_hash: of the encoder's tensors.

    Returns:
        The tensors under the network's names; empty where the network has no layers of a projection head.

    Raises:
        WeightsError: if there is no such file, it is damaged, of another encoder, or of another shape.
    """
    prefix, head = projection_of(network)
    if head is None:
        return {}
    given = Path(encoder_file)
    file = (given if given.is_dir() else given.parent) / PROJECTION_NAME
    if not file.is_file():
        raise WeightsError(
            f"{file} does not exist but this network begins in the middle of the projection head: give the encoder "
            "of a method that writes it (simclr_v2), or choose a network overlay without projected in its name."
        )
    state, card = _read(file)
    if card.encoder_hash != encoder_hash:
        raise WeightsError(
            f"{file} belongs to another encoder than the one in {given}: "
            "give the encoder of the same run and epoch (a run writes both after every epoch)."
        )
    wanted = {name: tensor.shape for name, tensor in head.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != wanted:
        raise WeightsError(
            f"{file} holds {', '.join(card.layers)} of width {card.hidden_dim} but the network has width "
            f"{wanted['0.weight'][0]}: run with --network_def#hidden_dim {card.hidden_dim}."
        )
    return {prefix + name: tensor for name, tensor in state.items()}


def _read(file: Path) -> tuple[dict[str, Tensor], ProjectionCard]:
    try:
        with safe_open(file, framework="pt") as reader:
            values = json.loads((reader.metadata() or {}).get(CARD_KEY, "{}"))
            state = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsError(f"{file} is damaged ({error}): copy it again from its source.") from error
    if values.keys() != {entry.name for entry in fields(ProjectionCard)}:
        raise WeightsError(f"{file} has no card of a projection head: copy it again from its run.")
    card = ProjectionCard(**values | {"layers": tuple(values["layers"])})
    if hash_tensors(state) != card.weights_hash:
        raise WeightsError(f"{file} is damaged (its tensors do not have the hash of its card): copy it again.")
    return state, card
