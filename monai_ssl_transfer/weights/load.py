"""Reading an encoder and putting it into a network, completely or not at all."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import floor
from pathlib import Path

import timm.models
import torch
from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import mark_loaded, pooling_of
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.completeness import BATCH_COUNTER, completeness
from monai_ssl_transfer.weights.converting.reshape import POSITION, fit_position
from monai_ssl_transfer.weights.input_channels import compare_input
from monai_ssl_transfer.weights.inspecting.statistics import doubts, statistics_of
from monai_ssl_transfer.weights.key_maps import KeyMap, encoder_map
from monai_ssl_transfer.weights.load_record import write_load_record
from monai_ssl_transfer.weights.projection import projection_weights
from monai_ssl_transfer.weights.read import encoder_facts, encoder_path, read_encoder
from monai_ssl_transfer.weights.reading.foreign import shapes_of
from monai_ssl_transfer.weights.report import LoadReport, first_names
from monai_ssl_transfer.weights.save import hash_tensors
from monai_ssl_transfer.weights.values import not_finite, position_grid

__all__ = ["encoder_path", "load_encoder_weights", "read_encoder", "starting_from"]

logger = logging.getLogger(__name__)


def load_encoder_weights(
    network: nn.Module,
    file: str | Path,
    *,
    minimum: float = 1.0,
    other_pooling: bool = False,
    channels: str = "",
) -> LoadReport:
    """Fill the encoder of a network from a file; the rest of the network stays as it is.

    A network of `build_projected_classifier` also takes the layers that are in the file beside the encoder's.

    Args:
        network: an encoder of `build_encoder` or a network around one (see `key_maps.encoder_map`).
        file: as for `read_encoder`.
        minimum: share of the encoder's numbers that must be loaded. Below 1 also leftovers in the file are accepted.
        other_pooling: whether an encoder may give another embedding (class token, mean) than in its pretraining.
        channels: what the network is fed, "windows", "single", "neighbours", "rgb" or "bgr", to be compared with the
            card (see `input_channels.compare_input`); "" compares nothing, but refuses an encoder of BGR images.

    Returns:
        The report, which is also logged.

    Raises:
        WeightsError: if anything does not fit; the network is then unchanged.
    """
    state, card = read_encoder(file)
    found = encoder_map(network)
    _check_card(card, found, file)
    said, doubted = compare_input(card, channels, file)
    if not other_pooling:
        _check_pooling(card, network, file)
    # of the tensors as they are in the file
    projection = projection_weights(network, file, card.weights_hash or hash_tensors(state))
    state, resampled = fit_position(state, found.architecture, _position_shape(found, network, state))
    notes = (*encoder_facts(file).notes, *said, *resampled)
    if projection:
        notes = (*notes, f"the first layers of the projection head are filled too ({len(projection)} tensors)")
    report, loadable = _compare(state, found, network, str(file), notes)
    report = replace(report, warnings=(*doubted, *report.warnings))
    _check_finite(loadable, file)
    if report.fraction < minimum or (minimum >= 1.0 and not report.complete):
        raise WeightsError(_refusal(report, encoder_facts(file).source))
    with torch.no_grad():
        network.load_state_dict(loadable | projection, strict=False)
    mark_loaded(network)
    log = logger.info if report.complete and not report.warnings else logger.warning
    log("%s", report.table())
    return report


def starting_from(
    network: nn.Module, file: str | Path | None, output_dir: str | Path | None = None, channels: str = ""
) -> nn.Module:
    """The network with the encoder of a file in it as a start of training, or as it is when there is no file.

    Args:
        network: as for `load_encoder_weights`.
        file: as for `read_encoder`; None for random values.
        output_dir: folder of the run, for the record of what was loaded (see `load_record`); None writes none.
        channels: what the network is fed, as for `load_encoder_weights`.

    Raises:
        WeightsError: as `load_encoder_weights`.
    """
    report = None if file is None else load_encoder_weights(network, file, other_pooling=True, channels=channels)
    if output_dir is not None:
        write_load_record(output_dir, file, report)
    return network


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
            "and feed it the same channels, or change the file with ssl-transfer weights convert --in_channels."
        )


def _check_finite(state: dict[str, Tensor], file: str | Path) -> None:
    for name in not_finite(state):
        raise WeightsError(
            f"{file} holds NaN or infinity in {name}: its training diverged; give an earlier checkpoint of it."
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


def _position_shape(found: KeyMap, network: nn.Module, state: dict[str, Tensor]) -> tuple[int, ...]:
    """The shape that the file's position embedding is to have; empty where nothing can be made of it."""
    wanted, given = found.read(network).get(POSITION), state.get(POSITION)
    if wanted is None or given is None or not position_grid(given.shape, found.architecture):
        return ()
    return tuple(wanted.shape)


def _compare(
    state: dict[str, Tensor], found: KeyMap, network: nn.Module, file: str, notes: tuple[str, ...]
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Pair the file's tensors with the encoder's; return the report and what can be loaded, under full names."""
    given, targets = found.rename(state), found.targets(network)
    compared = completeness(given, shapes_of(targets))
    if compared.counters:
        # Files of old torchvision have none; the counter does not take part in any computation of our networks.
        notes = (*notes, f"{len(compared.counters)} batch counters are not in the file and keep their value")
    sizes = {name: tensor.numel() for name, tensor in targets.items() if not name.endswith(BATCH_COUNTER)}
    report = LoadReport(
        source=file,
        network=found.network,
        matched=compared.matched,
        missing=compared.missing,
        unexpected=compared.unexpected,
        mismatched=tuple(
            f"{name}: {tuple(given[name].shape)} -> {tuple(targets[name].shape)}" for name in compared.mismatched
        ),
        fraction=sum(sizes.get(name, 0) for name in compared.matched) / sum(sizes.values()),
        notes=notes,
        statistics=statistics_of(loaded := found.restore({name: given[name] for name in compared.matched})),
        warnings=doubts(loaded),
    )
    return report, {found.prefix + name: given[name] for name in compared.matched}


def _refusal(report: LoadReport, source: str) -> str:
    """Why a file is not loaded: what is left over means another network, what is missing only a part of one."""
    start = f"{report.source} ({source})"
    absent = [
        f"{len(entries)} {kind} ({first_names(entries)})"
        for kind, entries in (("missing", report.missing), ("of another shape", report.mismatched))
        if entries
    ]
    more = f"{len(report.unexpected)} unexpected ({first_names(report.unexpected)})"
    if not absent:
        return (
            f"{start} holds all of the encoder of the {report.network} and {more}, which that encoder does not have, "
            "so that it computes something else: give the file of a plain encoder, or save the encoder's tensors alone."
        )
    beside = f", and has {more}" if report.unexpected else ""
    return (
        f"{start} fills {floor(10000 * report.fraction) / 100} % of the encoder of the {report.network}, with tensors "
        f"{', '.join(absent)}{beside}: give the file of a whole encoder."
    )
