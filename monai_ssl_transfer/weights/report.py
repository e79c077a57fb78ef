"""What came of loading weights, tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from monai_ssl_transfer.weights.inspecting.statistics import GroupStatistics


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of an encoder were filled.

    Args:
        source: the file.
        network: the network that was filled and its architecture.
        matched: names, within the network's encoder, of the tensors that were loaded.
        missing: names of the network's encoder for which the file has nothing.
        unexpected: names in the file for which the encoder has no place.
        mismatched: "name: (shape in the file) -> (shape in the network)".
        fraction: loaded share of the encoder's numbers, 0 to 1.
        notes: what was converted on the way, such as a resampled position embedding.
        statistics: of the tensors that were loaded, per group.
        warnings: what in them looks untrained or constant, and where the input is another than in the pretraining.
    """

    source: str
    network: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    fraction: float
    notes: tuple[str, ...] = ()
    statistics: tuple[GroupStatistics, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of both sides found its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def table(self, names: int = 5) -> str:
        """The report as a small text table.

        Args:
            names: how many names to show per row.
        """
        lines = [f"{self.source} -> {self.network}: {100 * self.fraction:.2f} % of the encoder's parameters loaded"]
        for row in ("matched", "missing", "unexpected", "mismatched"):
            entries: tuple[str, ...] = getattr(self, row)
            shown = "" if row == "matched" else first_names(entries, names)
            lines.append(f"  {row:<11}{len(entries):>5}  {shown}".rstrip())
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  WARNING: {warning}" for warning in self.warnings]
        return "\n".join([*lines, *(f"  {line}" for line in statistics_table(self.statistics))])

    def to_json(self) -> str:
        """The report as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"


def statistics_table(statistics: tuple[GroupStatistics, ...]) -> list[str]:
    """Lines of a table of figures per group."""
    if not statistics:
        return []
    width = max(len(row.group) for row in statistics)
    head = f"{'':<{width}}{'numbers':>12}{'mean':>10}{'SD':>10}{'min':>10}{'max':>10}{'zeros':>8}"
    return [head] + [
        f"{row.group:<{width}}{row.numbers:>12,}{row.mean:>10.4f}{row.sd:>10.4f}{row.minimum:>10.3f}{row.maximum:>10.3f}"
        f"{100 * row.zeros:>7.1f}%"
        for row in statistics
    ]


def first_names(entries: tuple[str, ...], count: int = 3) -> str:
    """The first names of a list, with the number of the rest."""
    rest = len(entries) - count
    return ", ".join(entries[:count]) + (f" and {rest} more" if rest > 0 else "")
