"""What a file of weights is, what it holds, and what would be used of it: an object, a table for people, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.completeness import completeness
from monai_ssl_transfer.weights.converting.reshape import POSITION
from monai_ssl_transfer.weights.inspecting.statistics import GroupStatistics, doubts, statistics_of
from monai_ssl_transfer.weights.inspecting.table import table_of
from monai_ssl_transfer.weights.published.files import KnownFile, by_name, hash_in_name, known_file
from monai_ssl_transfer.weights.read import (
    card_beside,
    card_inside,
    conversion_notes,
    existing_path,
    foreign_card,
)
from monai_ssl_transfer.weights.reading.files import Checkpoint, read_file
from monai_ssl_transfer.weights.reading.foreign import expected_shapes
from monai_ssl_transfer.weights.reading.formats import FoundEncoder, holders_of, plain_name
from monai_ssl_transfer.weights.values import find_checked, not_finite, position_grid


@dataclass(frozen=True)
class TensorGroup:
    """Tensors of a file that lie together.

    Args:
        start: what their names begin with; "" for entries beside the one that holds the encoder.
        names: their names in the file.
        numbers: how many numbers are in them.
        why: why they are not used; "" if they are.
    """

    start: str
    names: tuple[str, ...]
    numbers: int
    why: str = ""


@dataclass(frozen=True)
class Inspection:
    """All that is known about a file of weights.

    Args:
        file: its name without folders.
        size: in bytes.
        format: how it is written, as in `files.Checkpoint`.
        sha256: of the file, in hexadecimal digits.
        foreign_classes: classes that it asks for and that were read as inert values.
        source: what kind of checkpoint it is, "" if it holds none of our encoders.
        card: what is known of the encoder; None if there is none.
        patch_size: of a ViT, in pixels; 0 for ResNets.
        registers: of a ViT.
        complete: whether the encoder is whole, with no tensor of another shape and no value that is no number.
        gaps: names that are missing, left over, of another shape, or hold NaN or infinity.
        used: the tensors that would be used.
        dropped: what would not be used, and why.
        known: the published file that it is, by its hash.
        name_hint: the published file whose name it has, which proves nothing.
        notes: what would be done besides renaming, and what else should be known.
        statistics: of the encoder's tensors.
        warnings: what in them looks untrained or constant.
        refusal: why it cannot be used, "" if it can.
    """

    file: str
    size: int
    format: str
    sha256: str
    foreign_classes: tuple[str, ...]
    source: str = ""
    card: EncoderCard | None = None
    patch_size: int = 0
    registers: int = 0
    complete: bool = False
    gaps: tuple[str, ...] = ()
    used: tuple[TensorGroup, ...] = ()
    dropped: tuple[TensorGroup, ...] = ()
    known: KnownFile | None = None
    name_hint: KnownFile | None = None
    notes: tuple[str, ...] = ()
    statistics: tuple[GroupStatistics, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: str = ""

    def table(self, names: int = 2) -> str:
        """For people.

        Args:
            names: how many names to show of every group of tensors.
        """
        return table_of(self, names)

    def to_json(self) -> str:
        """Everything, as indented JSON; what is not finite, which JSON cannot say, is null."""
        return json.dumps(_finite(asdict(self)), indent=2, allow_nan=False) + "\n"

    @property
    def usable(self) -> bool:
        """Whether the encoder in it can be loaded."""
        return self.complete and not self.refusal


def inspect_file(path: str | Path) -> Inspection:
    """Look into a file of weights.

    Args:
        path: as for `read_encoder`.

    Returns:
        What it is; `refusal` says why if it holds none of our encoders.

    Raises:
        WeightsError: if there is no such file, or it cannot be read.
    """
    checkpoint = read_file(existing_path(path))
    known = known_file(checkpoint.sha256)
    facts: dict[str, Any] = {
        "file": checkpoint.file.name,
        "size": checkpoint.file.stat().st_size,
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "foreign_classes": checkpoint.placeholders,
        "known": known,
        "name_hint": None if known else by_name(checkpoint.file.name),
    }
    try:
        own = card_inside(checkpoint)
        found = find_checked(checkpoint)
    except WeightsError as error:
        return Inspection(**facts, refusal=str(error), used=_held(checkpoint))
    own = own or card_beside(checkpoint.file, found.state)
    card = own or foreign_card(checkpoint, found)
    gaps = _gaps(found)
    return Inspection(
        **facts,
        source=found.source,
        card=card,
        patch_size=found.patch_size,
        registers=found.registers,
        complete=not gaps,
        gaps=gaps,
        used=(_used(checkpoint, found),),
        dropped=_dropped(checkpoint, found),
        notes=(*(found.notes if own is None else conversion_notes(own)), *_notes(checkpoint, found)),
        statistics=statistics_of(found.state),
        warnings=doubts(found.state),
    )


def _held(checkpoint: Checkpoint) -> tuple[TensorGroup, ...]:
    """What is in a file that cannot be used, by the first part of the names."""
    groups: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for holder, tensors in holders_of(checkpoint.content).items():
        for name, tensor in tensors.items():
            start = f"{holder}: " * bool(holder) + plain_name(name).partition(".")[0]
            groups.setdefault(start, []).append(name)
            sizes[start] = sizes.get(start, 0) + tensor.numel()
    return tuple(TensorGroup(start, tuple(names), sizes[start]) for start, names in groups.items())


def _used(checkpoint: Checkpoint, found: FoundEncoder) -> TensorGroup:
    start = f"{found.holder}: " * bool(found.holder) + found.start
    numbers = sum(tensor.numel() for tensor in found.state.values())
    return TensorGroup(start.removesuffix(" ") or "all, at the top", tuple(found.names.values()), numbers)


def _dropped(checkpoint: Checkpoint, found: FoundEncoder) -> tuple[TensorGroup, ...]:
    """What is not used, together where it has the same reason and lies together."""
    groups: dict[tuple[str, str], list[str]] = {}
    tensors = holders_of(checkpoint.content).get(found.holder, {})
    for name, why in found.dropped.items():
        inside = name.startswith(found.start) and name in tensors
        level = name[len(found.start) :] if inside else plain_name(name)
        start = f"{level.partition('.')[0]}{'.' * ('.' in level)}" if name in tensors else ""
        groups.setdefault((start, why), []).append(name)
    return tuple(
        TensorGroup(start, tuple(names), sum(tensors[name].numel() for name in names if name in tensors), why)
        for (start, why), names in sorted(groups.items(), key=lambda item: not item[0][0])
    )


def _gaps(found: FoundEncoder) -> tuple[str, ...]:
    """What hinders a complete load: a position embedding may have another square grid, counters may be absent."""
    expected = expected_shapes(found.architecture, found.in_channels)
    compared = completeness(found.state, expected, {POSITION} if _resampled(found, expected) else ())
    missing = [f"missing: {name}" for name in compared.missing]
    more = [f"not known: {found.names.get(name, name)}" for name in compared.unexpected]
    other = [
        f"of another shape: {name} {tuple(found.state[name].shape)}, not {expected[name]}"
        for name in compared.mismatched
    ]
    wrong = [f"NaN or infinity in: {name}" for name in not_finite(found.state)]
    return tuple(sorted(missing) + sorted(more) + other + wrong)


def _resampled(found: FoundEncoder, expected: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a load could bring the position embedding to another grid."""
    if POSITION not in found.state or POSITION not in expected:
        return False
    given = tuple(found.state[POSITION].shape)
    return position_grid(given, found.architecture) > 0 and given[-1] == expected[POSITION][-1]


def _finite(value: Any) -> Any:
    """The same without numbers that JSON cannot say."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _notes(checkpoint: Checkpoint, found: FoundEncoder) -> tuple[str, ...]:
    notes = []
    stated = hash_in_name(checkpoint.file.name)
    if stated and not checkpoint.sha256.startswith(stated):
        notes.append(f"its name states the hash {stated}, which is not its own: it is damaged or another file")
    if any(name.endswith(".weight") for name in found.state) and _half(found.state):
        notes.append("its tensors are of half precision; networks take them as float32")
    return tuple(notes)


def _half(state: Mapping[str, torch.Tensor]) -> bool:
    return any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in state.values())
