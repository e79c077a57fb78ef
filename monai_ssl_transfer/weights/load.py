"""Reading an encoder and putting it into a network, completely or not at all."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import PATCH_SIZE, encoder_names, mark_loaded
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.key_maps import BATCH_COUNTER, HEADS, KeyMap, encoder_map, identify
from monai_ssl_transfer.weights.report import LoadReport, first_names
from monai_ssl_transfer.weights.save import CARD_KEY, CARD_NAME, WEIGHTS_NAME, hash_tensors

logger = logging.getLogger(__name__)

POSITION = "pos_embed"


def read_encoder(file: str | Path) -> tuple[dict[str, Tensor], EncoderCard]:
    """Read an encoder and its card.

    Args:
        file: `encoder.safetensors`, the folder with it, its card `encoder.json`, or a plain torch file
            (`.pt`, `.pth`, ...) with nothing but a state dict under canonical names; no pickled code is executed.

    Returns:
        The tensors under canonical names and the card; for files without a card it says what the tensors show.

    Raises:
        WeightsError: if there is no such file, it is damaged, or it is something else.
    """
    path = Path(file)
    if path.is_dir():
        path = path / WEIGHTS_NAME
    elif path.name == CARD_NAME:
        path = path.with_name(WEIGHTS_NAME)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: give the encoder.safetensors of a pretraining or its folder.")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def load_encoder_weights(network: nn.Module, file: str | Path, *, minimum: float = 1.0) -> LoadReport:
    """Fill the encoder of a network from a file; the rest of the network stays as it is.

    Args:
        network: an encoder of `build_encoder` or a network around one (see `key_maps.encoder_map`).
        file: as for `read_encoder`.
        minimum: share of the encoder's numbers that must be loaded. Below 1 also leftovers in the file are accepted.

    Returns:
        The report, which is also logged.

    Raises:
        WeightsError: if anything does not fit; the network is then unchanged.
    """
    state, card = read_encoder(file)
    found = encoder_map(network)
    _check_card(card, found, file)
    notes = _fit_position(state, found, network)
    report, loadable = _compare(state, found, network, str(file), notes)
    if report.fraction < minimum or (minimum >= 1.0 and not report.complete):
        raise WeightsError(_refusal(report))
    with torch.no_grad():
        network.load_state_dict(loadable, strict=False)
    mark_loaded(network)
    log = logger.info if report.complete else logger.warning
    log("%s", report.table())
    return report


def starting_from(network: nn.Module, file: str | Path | None) -> nn.Module:
    """The network with the encoder of a file in it, or as it is when there is no file.

    Args:
        network: as for `load_encoder_weights`.
        file: as for `read_encoder`; None for random values.

    Raises:
        WeightsError: as `load_encoder_weights`.
    """
    if file is not None:
        load_encoder_weights(network, file)
    return network


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], EncoderCard]:
    try:
        with safe_open(path, framework="pt") as reader:
            metadata = reader.metadata() or {}
            state = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}): copy it again from its source.") from error
    if CARD_KEY not in metadata:
        return state, _card_from_tensors(state, path)
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
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path} cannot be read as plain weights ({reason}): give a file with tensors only, "
            "written by save_encoder or torch.save(model.state_dict())."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        entries = first_names(tuple(map(str, content)), 5) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(
            f"{path} is a training checkpoint ({entries}), not a plain encoder: "
            "save the encoder's state dict alone, under the names of torchvision or timm."
        )
    state = {name: tensor for name, tensor in content.items() if not name.startswith(HEADS)}
    return state, _card_from_tensors(state, path)


def _card_from_tensors(state: dict[str, Tensor], path: Path) -> EncoderCard:
    """What can be known about an encoder without a card."""
    architecture, in_channels = identify(state)
    if not architecture:
        raise WeightsError(
            f"{path} holds none of our encoders (its first tensors: {first_names(tuple(state), 3)}): "
            f"give one of {', '.join(encoder_names())} under the names of torchvision or timm."
        )
    position = state.get(POSITION)
    side = PATCH_SIZE * round((position.shape[1] - 1) ** 0.5) if position is not None else 224
    return EncoderCard(architecture=architecture, in_channels=in_channels, image_size=side)


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


def _fit_position(state: dict[str, Tensor], found: KeyMap, network: nn.Module) -> tuple[str, ...]:
    """Resample a ViT's position embedding to the network's grid, as timm does for another image size."""
    wanted = found.read(network).get(POSITION)
    given = state.get(POSITION)
    if wanted is None or given is None or wanted.shape == given.shape:
        return ()
    old, new = (round((position.shape[1] - 1) ** 0.5) for position in (given, wanted))
    if wanted.shape[2] != given.shape[2] or old**2 != given.shape[1] - 1 or new**2 != wanted.shape[1] - 1:
        return ()
    state[POSITION] = resample_abs_pos_embed(given, [new, new], [old, old])
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
