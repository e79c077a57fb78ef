"""Reading an encoder with its card from a file of any known source."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import encoder_spec
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.converting.changes import noted
from monai_ssl_transfer.weights.converting.reshape import POSITION
from monai_ssl_transfer.weights.facts import EncoderFacts, remember, remembered
from monai_ssl_transfer.weights.key_maps import State
from monai_ssl_transfer.weights.published.files import KnownFile, known_file
from monai_ssl_transfer.weights.reading.files import Checkpoint, read_file
from monai_ssl_transfer.weights.reading.formats import FoundEncoder
from monai_ssl_transfer.weights.save import ADAPTER_KEY, CARD_KEY, CARD_NAME, WEIGHTS_NAME, hash_tensors
from monai_ssl_transfer.weights.values import find_checked, position_grid

logger = logging.getLogger(__name__)

PROJECTION_LAYERS = '"layers"'
_shown: set[str] = set()
"""Hashes of the files whose licence was shown by this process."""


def encoder_path(file: str | Path) -> Path:
    """The file with the tensors, where its folder or its card may be given instead."""
    path = Path(file)
    if path.is_dir():
        return path / WEIGHTS_NAME
    return path.with_name(WEIGHTS_NAME) if path.name == CARD_NAME else path


def existing_path(file: str | Path) -> Path:
    """As `encoder_path`, for a file that is there.

    Raises:
        WeightsError: if there is none, or a folder was given that has no `encoder.safetensors`.
    """
    path = encoder_path(file)
    if not path.is_file():
        what = f"{file} is a folder in which {path.name}" if Path(file).is_dir() else str(path)
        raise WeightsError(f"{what} does not exist: give the {WEIGHTS_NAME} of a pretraining, its folder, or a file.")
    return path


def read_encoder(file: str | Path, patch_size: int | None = None) -> tuple[dict[str, Tensor], EncoderCard]:
    """Read an encoder and its card.

    Args:
        file: `encoder.safetensors`, the folder with it, its card `encoder.json`, or a checkpoint of any source in
            `weights.reading.sources`; nothing in it is executed.
        patch_size: side in pixels that the patches of a ViT are resampled to where its own are none of ours (DINO's
            ViT-S/8, timm's ViT-B/32); None refuses such a file.

    Returns:
        The tensors under canonical names and the card; for files without a card it says what the tensors, and for
        published files their hash, show.

    Raises:
        WeightsError: if there is no such file, it is damaged, or it holds none of our encoders.
    """
    path = existing_path(file)
    checkpoint = read_file(path)
    own = card_inside(checkpoint)
    found = find_checked(checkpoint, patch_size)
    known = own or card_beside(path, found.state)
    card = known or foreign_card(checkpoint, found)
    logger.info("%s holds a %s (%d tensors): %s", path, card.architecture, len(found.state), found.source)
    if own is None:
        show_licence(checkpoint)
    notes = found.notes if known is None else conversion_notes(card)
    if found.resampled:  # not what the file holds, so that nothing is remembered of it
        return found.state, replace(card, method=noted(card.method, found.resampled))
    remember(path, EncoderFacts(card, checkpoint.sha256, found.source, notes))
    return found.state, card


def encoder_facts(file: str | Path) -> EncoderFacts:
    """The card, the hash and the source of an encoder's file, without reading again what was read before.

    Args:
        file: as for `read_encoder`.

    Raises:
        WeightsError: as `read_encoder`.
    """
    path = encoder_path(file)
    if (facts := remembered(path)) is None:
        read_encoder(path)
        facts = remembered(path)
    if facts is None:
        raise WeightsError(f"{path} was changed while it was read: wait until it is whole.")
    return facts


def card_inside(checkpoint: Checkpoint) -> EncoderCard | None:
    """The card in a file that this package wrote, after its tensors were checked against it.

    Raises:
        WeightsError: if they are not the ones that the card belongs to, or the file is one of another kind.
    """
    path = checkpoint.file
    if ADAPTER_KEY in checkpoint.metadata:
        raise WeightsError(
            f"{path} is an adapter, not an encoder: give models/model.pt of its run, where it is merged into the "
            "encoder, or go on from it by `networks.adapters.adapt(network, SavedAdaptation(file))` over the encoder "
            "that its run started from."
        )
    text = checkpoint.metadata.get(CARD_KEY)
    if text is None:
        return None
    if PROJECTION_LAYERS in text:
        raise WeightsError(f"{path} is a projection head, not an encoder: give the {WEIGHTS_NAME} beside it.")
    card = EncoderCard.from_json(text, str(path))
    if hash_tensors(checkpoint.content) != card.weights_hash:
        raise WeightsError(f"{path} is damaged (its tensors do not have the hash of its card): copy it again.")
    beside = path.with_name(CARD_NAME)
    if (
        path.name == WEIGHTS_NAME
        and beside.is_file()
        and EncoderCard.from_json(beside.read_text(), str(beside)) != card
    ):
        logger.warning("%s differs from the card inside of %s, which is the one that counts.", beside, path.name)
    return card


def conversion_notes(card: EncoderCard) -> tuple[str, ...]:
    """What was done to an encoder after its pretraining, as its card tells."""
    return tuple(f"its card says: {line}" for line in card.method.get("conversion", ()))


def card_beside(path: Path, state: State) -> EncoderCard | None:
    """The card in the folder of a `model.pt` of a pretraining, if it belongs to these very tensors."""
    beside = path.with_name(CARD_NAME)
    if not beside.is_file():
        return None
    card = EncoderCard.from_json(beside.read_text(encoding="utf-8"), str(beside))
    return card if card.weights_hash == hash_tensors(state) else None


def foreign_card(checkpoint: Checkpoint, found: FoundEncoder) -> EncoderCard:
    """What can be known about somebody else's encoder."""
    known = known_file(checkpoint.sha256)
    method = (known.method if known else "") or found.method
    return EncoderCard(
        architecture=found.architecture,
        in_channels=found.in_channels,
        mean=known.mean if known else (),
        std=known.std if known else (),
        image_size=image_side(found) or (known and known.image_size) or 224,
        pooling="",
        method={"name": method} if method else {},
        data={"domain": known.domain} if known and known.domain else {},
        source_hash=checkpoint.sha256,
        licence=known.licence if known else "",
    )


def image_side(found: FoundEncoder) -> int | None:
    """Side in pixels of the images that a ViT's position embedding is made for."""
    position = found.state.get(POSITION)
    if position is None or not (side := position_grid(position.shape, found.architecture)):
        return None
    return encoder_spec(found.architecture).patch_size * side


def show_licence(checkpoint: Checkpoint) -> None:
    """Log the licence of a known file and what its authors ask for, once per process."""
    known = known_file(checkpoint.sha256)
    if known is not None and checkpoint.sha256 not in _shown:
        _shown.add(checkpoint.sha256)
        logger.warning("%s", licence_text(known))


def licence_text(known: KnownFile) -> str:
    """The licence of a known file and what its authors ask for, in lines."""
    lines = [f"{known.name} is published under: {known.licence or 'no licence that is known'}"]
    if known.acknowledgement:
        lines.append(f"its authors ask you to acknowledge: {known.acknowledgement}")
    return "\n".join(lines)
