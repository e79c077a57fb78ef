"""Reading an encoder and putting it into a network, completely or not at all."""

from __future__ import annotations

import argparse
import logging
import pickle
from pathlib import Path
from typing import Any

import timm.models
import torch
from safetensors import SafetensorError, safe_open
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import encoder_names, encoder_spec, mark_loaded, pooling_of
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.key_maps import BATCH_COUNTER, KeyMap, encoder_map, identify
from monai_ssl_transfer.weights.projection import projection_weights
from monai_ssl_transfer.weights.released import encoder_in
from monai_ssl_transfer.weights.report import LoadReport, first_names
from monai_ssl_transfer.weights.save import CARD_KEY, CARD_NAME, WEIGHTS_NAME, hash_tensors

logger = logging.getLogger(__name__)

POSITION = "pos_embed"


def encoder_path(file: str | Path) -> Path:
    """The file with the tensors, where its folder or its card may be given instead."""
    path = Path(file)
    if path.is_dir():
        return path / WEIGHTS_NAME
    return path.with_name(WEIGHTS_NAME) if path.name == CARD_NAME else path


def read_encoder(file: str | Path) -> tuple[dict[str, Tensor], EncoderCard]:
    """Read an encoder and its card.

    Args:
        file: `encoder.safetensors`, the folder with it, its card `encoder.json`, or a torch file (`.pt`, `.pth`, ...)
            with a state dict under canonical names or a published checkpoint around one (see `weights.released`); no
            pickled code is executed.

    Returns:
        The tensors under canonical names and the card; for files without a card it says what the tensors show.

    Raises:
        WeightsError: if there is no such file, it is damaged, or it is something else.
    """
    path = encoder_path(file)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: give the encoder.safetensors of a pretraining or its folder.")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def load_encoder_weights(
    network: nn.Module, file: str | Path, *, minimum: float = 1.0, other_pooling: bool = False
) -> LoadReport:
    """Fill the encoder of a network from a file; the rest of the network stays as it is.

    A network of `build_projected_classifier` also takes the layers that are in the file beside the encoder's.

    Args:
        network: an encoder of `build_encoder` or a network around one (see `key_maps.encoder_map`).
        file: as for `read_encoder`.
        minimum: share of the encoder's numbers that must be loaded. Below 1 also leftovers in the file are accepted.
        other_pooling: whether an encoder may give another embedding (class token, mean) than in its pretraining.

    Returns:
        The report, which is also logged.

    Raises:
        WeightsError: if anything does not fit; the network is then unchanged.
    """
    state, card = read_encoder(file)
    found = encoder_map(network)
    _check_card(card, found, file)
    if not other_pooling:
        _check_pooling(card, network, file)
    # of the tensors as they are in the file
    projection = projection_weights(network, file, card.weights_hash or hash_tensors(state))
    notes = _fit_position(state, found, network)
    if projection:
        notes = (*notes, f"the first layers of the projection head are filled too ({len(projection)} tensors)")
    report, loadable = _compare(state, found, network, str(file), notes)
    if report.fraction < minimum or (minimum >= 1.0 and not report.complete):
        raise WeightsError(_refusal(report))
    with torch.no_grad():
        network.load_state_dict(loadable | projection, strict=False)
    mark_loaded(network)
    log = logger.info if report.complete else logger.warning
    log("%s", report.table())
    return report


def starting_from(network: nn.Module, file: str | Path | None) -> nn.Module:
    """The network with the encoder of a file in it as a start of training, or as it is when there is no file.

    Args:
        network: as for `load_encoder_weights`.
        file: as for `read_encoder`; None for random values.

    Raises:
        WeightsError: as `load_encoder_weights`.
    """
    if file is not None:
        load_encoder_weights(network, file, other_pooling=True)
    return network


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], EncoderCard]:
    try:
        with safe_open(path, framework="pt") as reader:
            metadata = reader.metadata() or {}
            state = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}): copy it again from its source.") from error
    if CARD_KEY not in metadata:
        return _without_card(state, path)
    card = EncoderCard.from_json(metadata[CARD_KEY], str(path))
    if hash_tensors(state) != card.weights_hash:
        raise WeightsError(f"{path} is damaged (its tensors do not have the hash of its card): copy it again.")
    beside = path.with_name(CARD_NAME)
    if (
        path.name == WEIGHTS_NAME
        and beside.is_file()
        and EncoderCard.from_json(beside.read_text(), str(beside)) != card
    ):
        logger.warning("%s differs from the card inside of %s, which is the one that counts.", beside, path.name)
    return state, card


def _read_torch(path: Path) -> tuple[dict[str, Tensor], EncoderCard]:
    try:
        # DINO, MoCo and MAE keep their command line beside the weights, in a class that holds values and does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path} cannot be read as plain weights ({reason}): give a file with tensors only, "
            "written by save_encoder or torch.save(model.state_dict())."
        ) from error
    return _without_card(content, path)


def _without_card(content: Any, path: Path) -> tuple[dict[str, Tensor], EncoderCard]:
    """The encoder in a file of somebody else, and what can be known about it."""
    state = encoder_in(content)
    if not state:
        entries = first_names(tuple(map(str, content)), 5) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(
            f"{path} is a training checkpoint ({entries}), not a plain encoder: "
            "save the encoder's state dict alone, under the names of torchvision or timm."
        )
    architecture, in_channels = identify(state)
    if not architecture:
        raise WeightsError(
            f"{path} holds none of our encoders (its first tensors: {first_names(tuple(state), 3)}): "
            f"give one of {', '.join(encoder_names())} under the names of torchvision or timm."
        )
    logger.info("%s holds a %s (%d tensors)", path, architecture, len(state))
    position = state.get(POSITION)
    side = 224
    if position is not None:
        spec = encoder_spec(architecture)
        side = spec.patch_size * round((position.shape[1] - spec.prefix_positions) ** 0.5)
    return state, EncoderCard(architecture=architecture, in_channels=in_channels, image_size=side, pooling="")


def _check_card(card: EncoderCard, found: KeyMap, file: str | Path) -> None:
    if card.architecture != found.architecture:
        raise WeightsError(
            f"{file} holds a {card.architecture} but the {found.network} wants {found.architecture or 'another'}: "
            f"build the network with the encoder {card.architecture}."
        )
    if card.in_channels != found.in_channels:
        raise WeightsError(
            f"{file} was pretrained on {card.in_channels} input channels ({card.channels or 'kind unknown'}) but the "
            f"{found.network} takes {found.in_channels}: build the network with in_channels={card.in_channels} "
            "and feed it the same channels."
        )


def _check_pooling(card: EncoderCard, network: nn.Module, file: str | Path) -> None:
    """A plain ViT gives an embedding, which is what it was pretrained for; a network around one takes what it needs."""
    if not isinstance(network, timm.models.VisionTransformer) or not card.pooling:
        return
    if pooling_of(network) != card.pooling:
        raise WeightsError(
            f"{file} was pretrained to give the {card.pooling} of its tokens as embedding but this encoder gives "
            f"{pooling_of(network)}: run with --pooling {card.pooling}."
        )


def _fit_position(state: dict[str, Tensor], found: KeyMap, network: nn.Module) -> tuple[str, ...]:
    """Resample a ViT's position embedding to the network's grid, as timm does for another image size."""
    wanted = found.read(network).get(POSITION)
    given = state.get(POSITION)
    if wanted is None or given is None or wanted.shape == given.shape:
        return ()
    prefix = encoder_spec(found.architecture).prefix_positions
    old, new = (round((position.shape[1] - prefix) ** 0.5) for position in (given, wanted))
    if wanted.shape[2] != given.shape[2] or old**2 != given.shape[1] - prefix or new**2 != wanted.shape[1] - prefix:
        return ()
    state[POSITION] = resample_abs_pos_embed(given, [new, new], [old, old], num_prefix_tokens=prefix)
    return (f"position embedding resampled from {old} x {old} to {new} x {new} patches",)


def _compare(
    state: dict[str, Tensor], found: KeyMap, network: nn.Module, file: str, notes: tuple[str, ...]
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Pair the file's tensors with the encoder's; return the report and what can be loaded, under full names."""
    given, targets = found.rename(state), found.targets(network)
    shared = [name for name in targets if name in given]
    matched = [name for name in shared if given[name].shape == targets[name].shape]
    mismatched = [
        f"{name}: {tuple(given[name].shape)} -> {tuple(targets[name].shape)}"
        for name in shared
        if given[name].shape != targets[name].shape
    ]
    counters = [name for name in targets if name not in given and name.endswith(BATCH_COUNTER)]
    if counters:
        # Files of old torchvision have none; the counter does not take part in any computation of our networks.
        notes = (*notes, f"{len(counters)} batch counters are not in the file and keep their value")
    sizes = {name: tensor.numel() for name, tensor in targets.items() if not name.endswith(BATCH_COUNTER)}
    report = LoadReport(
        source=file,
        network=found.network,
        matched=tuple(matched),
        missing=tuple(name for name in targets if name not in given and name not in counters),
        unexpected=tuple(name for name in given if name not in targets),
        mismatched=tuple(mismatched),
        fraction=sum(sizes.get(name, 0) for name in matched) / sum(sizes.values()),
        notes=notes,
    )
    return report, {found.prefix + name: given[name] for name in matched}


def _refusal(report: LoadReport) -> str:
    parts = [
        f"{len(entries)} {kind} ({first_names(entries)})"
        for kind, entries in (
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("of another shape", report.mismatched),
        )
        if entries
    ]
    return (
        f"{report.source} fills only {100 * report.fraction:.2f} % of the encoder of the {report.network}, with "
        f"tensors {', '.join(parts)}: give the file of a whole encoder, or lower `minimum` and have the rest random."
    )
