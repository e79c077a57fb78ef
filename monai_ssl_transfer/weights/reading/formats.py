"""Finding the encoder in a checkpoint of any known source, whatever it is wrapped in.

An encoder is found by its first layer, whatever its name begins with; what lies beside it is listed with the reason
why it is not used. Names are cut at their start only, never in the middle. The tables are elsewhere: who wrote the
file (`sources`), what the other tensors are (`parts`), names (`layouts`), and what is none of ours (`foreign`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import encoder_names, encoder_spec
from monai_ssl_transfer.weights.converting.reshape import POSITION, other_patches
from monai_ssl_transfer.weights.key_maps import State, identify
from monai_ssl_transfer.weights.published.files import known_file
from monai_ssl_transfer.weights.reading.files import Checkpoint
from monai_ssl_transfer.weights.reading.foreign import closest, foreign_name, shapes_of, unusual
from monai_ssl_transfer.weights.reading.layouts import to_canonical
from monai_ssl_transfer.weights.reading.leftovers import STUDENT, entry_of, part_of
from monai_ssl_transfer.weights.reading.places import SAVE_ALONE, Place, choose_place, holders_of, places_in, plain_name
from monai_ssl_transfer.weights.reading.settings_beside import network_settings
from monai_ssl_transfer.weights.reading.sources import CARDED, MONAI_VIT, OWN_CHECKPOINT, Facts, Source, source_of_facts
from monai_ssl_transfer.weights.report import first_names
from monai_ssl_transfer.weights.save import CARD_KEY

__all__ = ["FoundEncoder", "find_encoder", "fixed_positions", "holders_of", "plain_name"]

TWELVE_HEADED = {"vit_small": "vit_small_moco_v3"}
"""Encoders to those with the same tensors and 12 attention heads."""
TWELVE_HEADS = "12 attention heads"
"""What a fingerprint of our pretraining ends with (see `checkpoints.fingerprint`) where no tensor shows it."""
FIXED_POSITIONS = (
    "its positions are fixed sines and cosines, as in the ViT-S of MoCo v3's authors, which has 12 attention heads "
    "(vit_small_moco_v3), and the file does not show how many it has: 6 are assumed"
)
UNSEEN = (
    "no tensor shows the strides, dilation and pooling of the network it is from, nor its attention heads, and no "
    "settings lie beside the file: those of torchvision's ResNet and of timm's ViT are assumed"
)
BESIDE = "beside the encoder, part of another network"


@dataclass(frozen=True)
class FoundEncoder:
    """The encoder in a checkpoint.

    Args:
        state: its tensors under canonical names, with whatever else stands on its level and is not known.
        names: canonical names to those in the file (within `holder`).
        dropped: names in the file to why they are not used; entries beside `holder` by their own name.
        source: what kind of file it is.
        method: how it was pretrained, "" if the file does not tell.
        architecture: one of `encoder_names()`.
        in_channels: channels of the input.
        patch_size: side of a ViT's patches in pixels, 0 for ResNets.
        registers: of a ViT.
        holder: entry of the file with the tensors, "" for its top.
        start: what the names of the encoder begin with in there.
        notes: what was done besides renaming.
        resampled: what was done to make its patches those of one of ours.
    """

    state: State
    names: dict[str, str]
    dropped: dict[str, str]
    source: str
    method: str
    architecture: str
    in_channels: int
    patch_size: int = 0
    registers: int = 0
    holder: str = ""
    start: str = ""
    notes: tuple[str, ...] = ()
    resampled: tuple[str, ...] = ()


def find_encoder(checkpoint: Checkpoint, patch_size: int | None = None) -> FoundEncoder:
    """Find the encoder in a file, and say what else is in it.

    Args:
        checkpoint: the file.
        patch_size: side in pixels that the patches of a ViT are resampled to where its own are none of ours.

    Returns:
        The encoder under canonical names; nothing is left out that is not listed in `dropped`.

    Raises:
        WeightsError: if there is none of ours, with the first names and what the file is instead; if it is one whose
            tensors would mean something else here; or if there are several.
    """
    places = places_in(checkpoint.content)
    ours = [place for place in places if _is_ours(place, patch_size)]
    if not ours:
        raise WeightsError(_refusal(checkpoint.file, places, checkpoint.content))
    place = choose_place(places, checkpoint.content, checkpoint.file)
    if place not in ours:
        raise WeightsError(_damaged(checkpoint.file, place, ours[0]))
    if problem := unusual(_both_shapes(place)):
        raise WeightsError(_sentence(checkpoint.file, place.level, place.start, problem))
    return _found(checkpoint, place, patch_size)


def _is_ours(place: Place, patch_size: int | None) -> bool:
    state = to_canonical(_encoder_level(place))[0]
    return bool(identify(_resampled(state, patch_size)[0])[0])


def _resampled(state: State, patch_size: int | None) -> tuple[State, tuple[str, ...]]:
    """An encoder with other patches where those of the file are none of ours, and what was done."""
    return (state, ()) if not patch_size or identify(state)[0] else other_patches(state, patch_size)


def _both_shapes(place: Place) -> dict[str, tuple[int, ...]]:
    """Under the names in the file and under canonical ones."""
    return shapes_of(place.level) | shapes_of(to_canonical(_encoder_level(place))[0])


def _encoder_level(place: Place) -> State:
    """The tensors on the encoder's level that are not known to be something else."""
    return {name: tensor for name, tensor in place.level.items() if not part_of(name)}


def _found(checkpoint: Checkpoint, place: Place, patch_size: int | None) -> FoundEncoder:
    level = _encoder_level(place)
    state, names, notes = to_canonical(level)
    state, resampled = _resampled(state, patch_size)
    architecture, in_channels = identify(state)
    spec = encoder_spec(architecture)
    facts = Facts(
        entries={str(name) for name in checkpoint.content},
        holder=place.holder,
        start=place.plain_start,
        names={plain_name(name) for name in place.tensors} | set(place.level),
        family=spec.family,
        format=CARDED if CARD_KEY in checkpoint.metadata else checkpoint.format,
        arch=str(checkpoint.content.get("arch", "")),
        fixed_positions=fixed_positions(state),
    )
    source = source_of_facts(facts)
    method = source.method or _own_method(checkpoint, source.name)
    if source.method == "moco_v3" or method.endswith(TWELVE_HEADS):
        architecture = TWELVE_HEADED.get(architecture, architecture)
    if facts.format != CARDED:
        architecture, more = _checked(checkpoint, place, architecture, source, facts)
        notes = (*notes, *more)
    return FoundEncoder(
        state=state,
        names={canonical: place.start + name for canonical, name in names.items()},
        dropped=_dropped(checkpoint, place, {place.start + name for name in level}),
        source=source.name,
        method=method.partition("(")[0],
        architecture=architecture,
        in_channels=in_channels,
        patch_size=spec.patch_size if spec.family == "vit" else 0,
        registers=spec.registers,
        holder=place.holder,
        start=place.start,
        notes=notes,
        resampled=resampled,
    )


def _checked(
    checkpoint: Checkpoint, place: Place, architecture: str, source: Source, facts: Facts
) -> tuple[str, tuple[str, ...]]:
    """What the settings beside a file say of what no tensor shows, and what must be noted where there are none.

    Returns:
        The architecture and notes.

    Raises:
        WeightsError: if the settings are those of a network that computes something else.
    """
    settings = network_settings(checkpoint.file, encoder_spec(architecture))
    if settings.problem and (other := TWELVE_HEADED.get(architecture)):
        settings, architecture = network_settings(checkpoint.file, encoder_spec(other)), other
    if settings.problem:
        raise WeightsError(_sentence(checkpoint.file, place.level, place.start, settings.problem))
    if settings.known or source.name == OWN_CHECKPOINT:
        return architecture, ()
    if architecture == "vit_small" and facts.fixed_positions:
        return architecture, (FIXED_POSITIONS,)
    unseen = not source.method and (facts.family == "resnet" or source.name == MONAI_VIT)
    known = unseen and checkpoint.file.is_file() and known_file(checkpoint.sha256)
    return architecture, (UNSEEN,) if unseen and not known else ()


def fixed_positions(state: Mapping[str, Tensor]) -> bool:
    """Whether a ViT's positions are sines and cosines: rows of the length sqrt(D / 2), and none for the class token."""
    position = state.get(POSITION)
    if position is None or position.ndim != 3 or position.shape[1] < 2:
        return False
    token, patches = position[0, 0].float(), position[0, 1:].float()
    squares = patches.square().sum(1)
    return not bool(token.any()) and bool(torch.allclose(squares, squares.new_tensor(patches.shape[1] / 2), rtol=1e-3))


def _own_method(checkpoint: Checkpoint, source: str) -> str:
    """The method in a checkpoint of our pretraining, as its fingerprint has it."""
    if source != OWN_CHECKPOINT:
        return ""
    return str(checkpoint.content["fingerprint"].get("method", ""))


def _dropped(checkpoint: Checkpoint, place: Place, used: set[str]) -> dict[str, str]:
    """What is not used: tensors beside the encoder, and entries beside the one that holds it."""
    dropped = {name: _why(name, place) for name in place.tensors if name not in used}
    content: Mapping[str, Any] = checkpoint.content
    path = ""
    for part in place.holder.split(".") if place.holder else [""]:
        others = {str(name): value for name, value in content.items() if name != part and not isinstance(value, Tensor)}
        dropped |= {path + name: entry_of(name, value, part or "its top") for name, value in others.items()}
        content = content.get(part, {})
        path += f"{part}."
    return dropped


def _why(name: str, place: Place) -> str:
    if name.startswith(place.start) and (why := part_of(name[len(place.start) :])):
        return why
    plain = plain_name(name)
    if place.plain_start == "teacher_encoder." and plain.startswith("encoder."):
        return STUDENT
    return part_of(plain) or BESIDE


def _refusal(file: Path, places: list[Place], content: Mapping[str, Any]) -> str:
    """Why a file holds none of our encoders."""
    for place in places:
        if what := foreign_name(_both_shapes(place)):
            return _sentence(file, place.level, place.start, what)
    holders = holders_of(content)
    if not holders:
        entries = first_names(tuple(map(str, content)), 5) if isinstance(content, Mapping) else type(content).__name__
        return (
            f"{file} is a training checkpoint ({entries}), not a plain encoder, and holds no tensors by name: "
            "save the encoder's state dict alone, under the names of torchvision or timm."
        )
    tensors = next(iter(holders.values()))
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    starts = sorted({"", *(name.partition(".")[0] + "." for name in plain)})
    for start in starts:
        level = {name[len(start) :]: tensor for name, tensor in plain.items() if name.startswith(start)}
        if what := foreign_name(shapes_of(level)):
            return _sentence(file, tensors, "", what)
    return _sentence(file, tensors, "", closest(shapes_of(plain)) or "no names of an encoder are among them")


def _damaged(file: Path, place: Place, other: Place) -> str:
    """Why the encoder that is meant cannot be used, where another one in the file could be."""
    shapes = _both_shapes(place)
    what = foreign_name(shapes) or closest(shapes)
    return (
        f"{file} holds none of our encoders where the one is that is meant ({place.label}): {what}; the other one "
        f"({other.label}) is not taken in its place: give a whole file, or {SAVE_ALONE}."
    )


def _sentence(file: Path, tensors: State, start: str, what: str) -> str:
    first = first_names(tuple(start + name for name in tensors), 3)
    return (
        f"{file} holds none of our encoders (its first tensors: {first}): {what}; give one of "
        f"{', '.join(encoder_names())}."
    )
