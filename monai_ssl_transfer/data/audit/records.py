"""Items with what reading them told, as the checks take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monai_ssl_transfer.data.audit.facts import Facts, PhotographFacts, ScanFacts
from monai_ssl_transfer.data.audit.findings import Picture
from monai_ssl_transfer.data.audit.items import Item


@dataclass(frozen=True)
class Record:
    """One scan or photograph and its facts.

    Args:
        item: what it is.
        facts: what reading it told.
        other: whether it is of the data set that is compared against.
    """

    item: Item
    facts: Facts
    other: bool = False

    @property
    def shown(self) -> str:
        """How a report calls it."""
        row = self.facts.row if isinstance(self.facts, PhotographFacts) else -1
        return f"{self.item.shown}, frame {row}" if row >= 0 else self.item.shown

    @property
    def part(self) -> str:
        """Part of the split, or the other data set."""
        return "other set" if self.other else self.item.part

    @property
    def picture(self) -> Picture:
        """What a page shows of it."""
        row = self.facts.row if isinstance(self.facts, PhotographFacts) else -1
        shown = self.item.picture(row)
        return Picture(self.shown, shown.image, shown.label, shown.files, shown.series, row)


def scans_of(records: Sequence[Record]) -> list[tuple[Record, ScanFacts]]:
    """CT scans that could be read, without lone labels."""
    return [
        (one, one.facts)
        for one in records
        if isinstance(one.facts, ScanFacts) and one.facts.problem is None and one.facts.shape
    ]


def photographs_of(records: Sequence[Record]) -> list[tuple[Record, PhotographFacts]]:
    """Photographs that could be read."""
    return [(one, one.facts) for one in records if isinstance(one.facts, PhotographFacts) and one.facts.problem is None]


def apart(one: Record, other: Record) -> str:
    """How two records are kept apart: "both-sets", "two-parts", or "" where they are not."""
    if one.other != other.other:
        return "both-sets"
    return "two-parts" if one.part and other.part and one.part != other.part else ""


def both_sides(one: Record, other: Record) -> str:
    """Names of two records with their parts, for a sentence."""
    return " and ".join(f"{r.shown} ({r.part})" if r.part else r.shown for r in (one, other))
