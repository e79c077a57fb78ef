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
from monai_ssl_transfer.weights.files import Checkpoint
from monai_ssl_transfer.weights.foreign import closest, foreign_name, shapes_of, unusual
from monai_ssl_transfer.weights.key_maps import State, identify
from monai_ssl_transfer.weights.layouts import encoder_starts, to_canonical
from monai_ssl_transfer.weights.parts import ENTRIES, entry_of, part_of
from monai_ssl_transfer.weights.report import first_names
from monai_ssl_transfer.weights.save import CARD_KEY
from monai_ssl_transfer.weights.sources import CARDED, OWN_CHECKPOINT, Facts, source_of_facts

HOLDERS = ("state_dict", "model_state_dict", "model", "teacher", "target_encoder", "student", "net", "network_weights")
"""Entries that hold tensors, the one to prefer first; DINO's teacher is the better one of two."""
WRAPPERS = ("module", "_orig_mod", "_forward_module")
"""What DataParallel, torch.compile and Fabric put into names, in any order and number."""
PAIRS = (
    ("base_encoder.", "momentum_encoder."),
    ("encoder.", "momentum_encoder."),
    ("encoder_q.", "encoder_k."),
    ("backbone.", "backbone_momentum."),
    ("encoder.", "encoder_momentum."),
    ("online_encoder.", "target_encoder."),
    ("teacher_encoder.", "encoder."),
    ("teacher_backbone.", "student_backbone."),
    ("teacher.", "student."),
)
"""Of two encoders in a file the one that is used, and the other."""
STUDENT = "student; its moving average, the teacher, is used"
TWELVE_HEADS = "12 attention heads"
"""What a fingerprint of our pretraining ends with (`engines.fingerprint.method_text`) where no tensor shows it."""
FIXED_POSITIONS = (
    "its positions are fixed sines and cosines, as in the ViT-S of MoCo v3's authors, which has 12 attention heads "
    "(vit_small_moco_v3), and the file does not show how many it has: 6 are assumed"
)
BESIDE = "beside the encoder, part of another network"
DEPTH = 3
"""Levels of entries that are looked through."""


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


@dataclass(frozen=True)
class Place:
    """Where in a file an encoder may be.

    Args:
        holder: entry of the file, "a.b" for one within another.
        start: of the names, as in the file.
        tensors: all tensors of the holder.
    """

    holder: str
    start: str
    tensors: State

    @property
    def level(self) -> State:
        """The tensors behind the start."""
        return {name[len(self.start) :]: each for name, each in self.tensors.items() if name.startswith(self.start)}

    @property
    def plain_start(self) -> str:
        """The start without what wrappers put into it."""
        return "".join(f"{part}." for part in self.start.split(".") if part and part not in WRAPPERS)


def find_encoder(checkpoint: Checkpoint) -> FoundEncoder:
    """Find the encoder in a file, and say what else is in it.

    Args:
        checkpoint: the file.

    Returns:
        The encoder under canonical names; nothing is left out that is not listed in `dropped`.

    Raises:
        WeightsError: if there is none of ours, with the first names and what the file is instead; if it is one whose
            tensors would mean something else here; or if there are several.
    """
    places = _places(checkpoint)
    ours = [place for place in places if identify(to_canonical(_encoder_level(place))[0])[0]]
    if not ours:
        raise WeightsError(_refusal(checkpoint.file, places, checkpoint.content))
    place = _chosen(ours, checkpoint.file)
    if problem := unusual(shapes_of(place.level) | shapes_of(to_canonical(_encoder_level(place))[0])):
        raise WeightsError(_sentence(checkpoint.file, place.level, place.start, problem))
    return _found(checkpoint, place)


def holders_of(content: Mapping[str, Any]) -> dict[str, State]:
    """Every entry of a file that holds tensors, "" for its top, the one to prefer first.

    Args:
        content: of a `Checkpoint`.
    """
    holders = _holders(content, "", DEPTH)
    return dict(sorted(holders.items(), key=lambda item: _rank(item[0])))


def plain_name(name: str) -> str:
    """A name without what wrappers put in front of it."""
    first, dot, rest = name.partition(".")
    return plain_name(rest) if dot and first in WRAPPERS else name


def _holders(content: Mapping[Any, Any], path: str, depth: int) -> dict[str, State]:
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    holders = {path: tensors} if tensors else {}
    for name, value in content.items():
        if isinstance(value, Mapping) and depth and (name == "student" or str(name) not in ENTRIES):
            holders |= _holders(value, f"{path}.{name}" if path else str(name), depth - 1)
    return holders


def _rank(holder: str) -> int:
    last = holder.rpartition(".")[2]
    return HOLDERS.index(last) if last in HOLDERS else -1 if not holder else len(HOLDERS)


def _places(checkpoint: Checkpoint) -> list[Place]:
    """Everything in a file that begins like an encoder; the holders in their order."""
    return [
        Place(holder, start, tensors)
        for holder, tensors in holders_of(checkpoint.content).items()
        for start in encoder_starts(tensors)
    ]


def _encoder_level(place: Place) -> State:
    """The tensors on the encoder's level that are not known to be something else."""
    return {name: tensor for name, tensor in place.level.items() if not part_of(name)}


def _chosen(places: list[Place], file: Path) -> Place:
    """The encoder to use, if the file holds several that are known to belong together."""
    here = [place for place in places if place.holder == places[0].holder]
    starts = {place.plain_start for place in here}
    losers = {loser for winner, loser in PAIRS if winner in starts}
    left = [place for place in here if place.plain_start not in losers]
    if len(left) != 1:
        starts_left = first_names(tuple(place.start for place in left))
        raise WeightsError(
            f"{file} holds {len(left)} encoders (their names begin with {starts_left}) and does not say which is "
            "meant: save the one you want alone, torch.save(encoder.state_dict(), file)."
        )
    return left[0]


def _found(checkpoint: Checkpoint, place: Place) -> FoundEncoder:
    level = _encoder_level(place)
    state, names, notes = to_canonical(level)
    architecture, in_channels = identify(state)
    spec = encoder_spec(architecture)
    facts = Facts(
        entries={str(name) for name in checkpoint.content},
        holder=place.holder,
        start=place.plain_start,
        names={plain_name(name) for name in place.tensors} | set(place.level),
        family=spec.family,
        format=CARDED if CARD_KEY in checkpoint.metadata else checkpoint.format,
    )
    source = source_of_facts(facts)
    method = source.method or _own_method(checkpoint, source.name)
    if source.method == "moco_v3" or method.endswith(TWELVE_HEADS):
        architecture = {"vit_small": "vit_small_moco_v3"}.get(architecture, architecture)
    if architecture == "vit_small" and facts.format != CARDED and fixed_positions(state):
        notes = (*notes, FIXED_POSITIONS)
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
    )


def fixed_positions(state: Mapping[str, Tensor]) -> bool:
    """Whether a ViT's positions are sines and cosines: rows of the length sqrt(D / 2), and none for the class token."""
    position = state.get("pos_embed")
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
        others = (str(name) for name, value in content.items() if name != part and not isinstance(value, Tensor))
        dropped |= {path + name: entry_of(name) for name in others}
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
        level = place.level
        if what := foreign_name(shapes_of(level)):
            return _sentence(file, level, place.start, what)
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


def _sentence(file: Path, tensors: State, start: str, what: str) -> str:
    first = first_names(tuple(start + name for name in tensors), 3)
    return (
        f"{file} holds none of our encoders (its first tensors: {first}): {what}; give one of "
        f"{', '.join(encoder_names())}."
    )
