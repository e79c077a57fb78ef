"""What one kind of checkpoint is recognised by; the table of all kinds is in `weights.reading.sources`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What a source is recognised by.

    Args:
        entries: names at the top of the file, "" where they are those of the tensors.
        holder: entry that holds the encoder's tensors, "" for the top of the file, "a.b" for one within another.
        start: what the encoder's names begin with in there, without `module.` and `_orig_mod.`.
        names: all names of tensors in there, likewise, without what the wrappers put in front.
        family: "resnet" or "vit".
        format: of `files.Checkpoint`.
        arch: what the file's own entry `arch` says, "" if it has none.
        fixed_positions: whether a ViT's positions are fixed sines and cosines.
    """

    entries: Collection[str]
    holder: str
    start: str
    names: Collection[str]
    family: str
    format: str = ""
    arch: str = ""
    fixed_positions: bool = False


@dataclass(frozen=True)
class Source:
    """One kind of checkpoint.

    Args:
        name: what it is, for people.
        method: how it was pretrained, "" if the file does not tell.
        holder: entry with the tensors, None for any.
        start: of the encoder's names, None for any.
        marks: starts of names of which each must occur beside the encoder or in it.
        entries: names that must be at the top of the file.
        without: starts of names of which none may occur.
        family: "resnet", "vit" or "" for both.
        format: of the file, "" for any.
        archs: of which the file's entry `arch` must be one; none for any.
        fixed_positions: whether the positions must be fixed sines and cosines.
        uses: which tensors are used, for the table of sources.
        drops: which are not, for the table of sources.
    """

    name: str
    method: str = ""
    holder: str | None = None
    start: str | None = None
    marks: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    family: str = ""
    format: str = ""
    archs: tuple[str, ...] = ()
    fixed_positions: bool = False
    uses: str = ""
    drops: str = ""

    def fits(self, facts: Facts) -> bool:
        """Whether a checkpoint is of this kind."""
        return (
            self.holder in (None, facts.holder)
            and self.start in (None, facts.start)
            and self.family in ("", facts.family)
            and self.format in ("", facts.format)
            and (not self.archs or facts.arch in self.archs)
            and (facts.fixed_positions or not self.fixed_positions)
            and all(entry in facts.entries for entry in self.entries)
            and all(_any(mark, facts.names) for mark in self.marks)
            and not any(_any(mark, facts.names) for mark in self.without)
        )


def _any(start: str, names: Collection[str]) -> bool:
    return any(name.startswith(start) for name in names)
