"""Where in a checkpoint encoders lie, and which of several is meant.

The choice is made before anything else is asked of an encoder: one that is damaged is never replaced by another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.reading.layouts import encoder_starts
from monai_ssl_transfer.weights.reading.leftovers import AVERAGES, ENTRIES
from monai_ssl_transfer.weights.report import first_names
from monai_ssl_transfer.weights.transformer_names import State

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
HOLDER_PAIRS = (
    ("teacher", "student"),
    ("target_encoder", "encoder"),
    ("encoder", "momentum_encoder"),
    ("state_dict", "state_dict_ema"),
    ("model", "model_ema"),
    ("model", "ema"),
)
"""The same of two entries."""
SAVE_ALONE = "save the one you want alone, torch.save(encoder.state_dict(), file)"
DEPTH = 3
"""Levels of entries that are looked through."""


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

    @property
    def label(self) -> str:
        """The place for messages."""
        return f"{self.holder}: {self.start}".strip().removesuffix(":") if self.holder or self.start else "its top"


def places_in(content: Mapping[str, Any]) -> list[Place]:
    """Everything in a file that begins like an encoder, the preferred holder first.

    Args:
        content: of a `Checkpoint`.
    """
    return [
        Place(holder, start, tensors)
        for holder, tensors in holders_of(content).items()
        for start in encoder_starts(tensors)
    ]


def choose_place(places: list[Place], content: Mapping[str, Any], file: Path) -> Place:
    """The place that is meant, whether its encoder is whole or not.

    Args:
        places: of `places_in`, at least one.
        content: of the `Checkpoint`.
        file: for messages.

    Raises:
        WeightsError: if there are several and nothing shows which is meant, or if what should be used begins like no
            encoder and only what stands back behind it does.
    """
    rank = _rank(places[0].holder)
    rivals = [place for place in places if _rank(place.holder) == rank]
    left = [place for place in rivals if not _loses(place, rivals)]
    if len(left) != 1:
        one_holder = len({place.holder for place in left}) == 1
        labels = first_names(tuple(place.start if one_holder else place.label for place in left))
        where = "their names begin with" if one_holder else "under"
        raise WeightsError(
            f"{file} holds {len(left)} encoders ({where} {labels}) and does not say which is meant: {SAVE_ALONE}."
        )
    if better := _better_one(left[0], content):
        raise WeightsError(
            f"{file} has an encoder in {left[0].label}, but the one that is meant, in {better}, has no first layer: "
            f"give a whole file, or {SAVE_ALONE}."
        )
    return left[0]


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
        if isinstance(value, Mapping) and depth and str(name) not in ENTRIES:
            holders |= _holders(value, f"{path}.{name}" if path else str(name), depth - 1)
    return holders


def _rank(holder: str) -> int:
    """Known names first, unknown ones all alike, moving averages last."""
    last = holder.rpartition(".")[2]
    if last in AVERAGES and last not in HOLDERS:
        return len(HOLDERS) + 1
    return HOLDERS.index(last) if last in HOLDERS else -1 if not holder else len(HOLDERS)


def _loses(place: Place, rivals: list[Place]) -> bool:
    """Whether another place in the same entry is preferred."""
    starts = {other.plain_start for other in rivals if other.holder == place.holder}
    return any(winner in starts for winner, loser in PAIRS if loser == place.plain_start)


def _better_one(place: Place, content: Mapping[str, Any]) -> str:
    """Where the preferred partner of a place has tensors, though none that begins like an encoder; "" if nowhere."""
    names = {plain_name(name) for name in place.tensors}
    for winner, loser in PAIRS:
        if loser == place.plain_start and any(name.startswith(winner) for name in names):
            return winner
    path, dot, last = place.holder.rpartition(".")
    partners = {path + dot + winner for winner, loser in HOLDER_PAIRS if loser == last}
    return next((holder for holder in holders_of(content) if holder in partners), "")
