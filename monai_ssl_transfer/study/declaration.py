"""What a study set out to answer, kept beside its table: metrics, declared cells, families of comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.results import Cell

FORMAT = 1
DECLARATION_NAME = "study.json"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown and judged.

    Args:
        name: in the table.
        scale: factor for printing, 100 for percent.
        unit: of the printed value, such as "%".
        difference_unit: of a printed difference, such as "points".
        digits: after the point of a printed value.
        larger_is_better: else smaller is.
        margin: largest difference that does not matter, in the table's unit, stated before the runs; None tests none.
    """

    name: str
    scale: float = 1.0
    unit: str = ""
    difference_unit: str = ""
    digits: int = 2
    larger_is_better: bool = True
    margin: float | None = None

    @property
    def ruler(self) -> str:
        """What its differences are measured in; those of two metrics are drawn together only where this is the same."""
        return self.difference_unit or self.name


@dataclass(frozen=True)
class DeclaredCell:
    """Runs that the study wants.

    Args:
        cell: what is trained and judged.
        metrics: those that are reported.
        seeds: one run each.
    """

    cell: Cell
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """Two initialisations of otherwise the same cell.

    Args:
        candidate: cell in question.
        reference: cell that it is measured against.
        metric: of both.
    """

    candidate: Cell
    reference: Cell
    metric: str


@dataclass(frozen=True)
class Family:
    """Comparisons that are corrected together.

    Args:
        name: short.
        description: what is in it, who declared it and when.
        comparisons: all of them, run or not.
    """

    name: str
    description: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Interpolation:
    """A population that a paper made up between two real ones; it is shown beside real runs and never counted as runs.

    Args:
        name: of the population.
        between: initialisations of the two real ones.
        sizes: number of images that the two were pretrained on.
        at: number of images that the population stands for.
    """

    name: str
    between: tuple[str, str]
    sizes: tuple[float, float]
    at: float


@dataclass(frozen=True)
class Declaration:
    """A study: what belongs to it and what it compares.

    Args:
        title: of the report.
        source: where the runs come from.
        metrics: those of the declared cells.
        cells: declared runs, in the order of the report.
        families: comparisons that are corrected together.
        shown: comparisons whose differences are shown and not tested, because their metric says much the same of the
            same runs as one of a family.
        headline: settings (cells of the reference and a metric) for which relative differences and interpolated
            populations are printed.
        interpolations: see `Interpolation`.
        descriptions: experiment -> what it is.
        notes: cautions for the reader.
    """

    title: str
    source: str
    metrics: tuple[Metric, ...]
    cells: tuple[DeclaredCell, ...]
    families: tuple[Family, ...]
    shown: tuple[Comparison, ...] = ()
    headline: tuple[Comparison, ...] = ()
    interpolations: tuple[Interpolation, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def metric(self, name: str) -> Metric:
        """Return how a metric is shown; an undeclared one as it is."""
        return next((metric for metric in self.metrics if metric.name == name), Metric(name))


def write_declaration(declaration: Declaration, file: Path) -> None:
    """Write a declaration as JSON."""
    text = json.dumps({"format": FORMAT, **asdict(declaration)}, indent=1)
    write_durably(file, lambda stream: stream.write((text + "\n").encode()))


def read_declaration(file: Path) -> Declaration:
    """Read a declaration.

    Raises:
        DataError: the file is not there or is no declaration.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: `ssl-transfer study import` makes the folder of a study.") from error
    except ValueError as error:
        raise DataError(f"{file} is damaged: import the study's table again.") from error
    try:
        if content.pop("format") != FORMAT:
            raise ValueError("another version")
        return _declaration(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is no declaration of a study ({error}): import the study's table again.") from error


def _declaration(content: dict[str, Any]) -> Declaration:
    unknown = set(content) - {one.name for one in fields(Declaration)}
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    return Declaration(
        title=content["title"],
        source=content["source"],
        metrics=tuple(Metric(**one) for one in content["metrics"]),
        cells=tuple(
            DeclaredCell(Cell(**one["cell"]), tuple(one["metrics"]), tuple(one["seeds"])) for one in content["cells"]
        ),
        families=tuple(
            Family(one["name"], one["description"], tuple(_comparison(two) for two in one["comparisons"]))
            for one in content["families"]
        ),
        shown=tuple(_comparison(one) for one in content.get("shown", ())),
        headline=tuple(_comparison(one) for one in content["headline"]),
        interpolations=tuple(
            Interpolation(one["name"], tuple(one["between"]), tuple(one["sizes"]), one["at"])
            for one in content["interpolations"]
        ),
        descriptions=content["descriptions"],
        notes=tuple(content["notes"]),
    )


def _comparison(content: dict[str, Any]) -> Comparison:
    return Comparison(Cell(**content["candidate"]), Cell(**content["reference"]), content["metric"])
