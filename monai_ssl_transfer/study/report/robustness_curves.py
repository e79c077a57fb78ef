"""Robustness of the trained initialisations beside each other: scores under corruptions, compared within cases."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.cell_values import CELL_FILE
from monai_ssl_transfer.study.report.run_folder import RunCell, RunFolder, read_json
from monai_ssl_transfer.study.results import Cell

if TYPE_CHECKING:
    from monai_ssl_transfer.evaluation.robustness import JudgedCase

ROBUSTNESS = "robustness"
CLEAN = ("clean", 0)
DRAWS = 2000

Grid = Mapping[tuple[str, int], "Sequence[JudgedCase]"]


@dataclass(frozen=True)
class Corrupted:
    """All initialisations of one setting under the same corruptions.

    Args:
        setting: cell without its initialisation.
        score: name of it.
        higher_is_better: False for errors.
        groups: patients or scenes that the intervals draw.
        corruptions: names.
        severities: of all of them.
        scores: initialisation -> (corruption, severity) -> (1 + draws,) score, meaned over its seeds.
        seeds: initialisation -> number of its runs.
        left_out: why runs of this setting are not among them.
    """

    setting: Cell
    score: str
    higher_is_better: bool
    groups: int
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    scores: Mapping[str, Mapping[tuple[str, int], np.ndarray]]
    seeds: Mapping[str, int]
    left_out: tuple[str, ...]

    def at(self, name: str, severity: int) -> np.ndarray:
        """Score of an initialisation at a severity, every corruption weighing the same; severity 0 is clean."""
        if severity == 0:
            return self.scores[name][CLEAN]
        return np.mean([self.scores[name][corruption, severity] for corruption in self.corruptions], axis=0)

    def drop(self, name: str) -> np.ndarray:
        """What is lost against the clean images, meaned over corruptions and severities; above 0 is a loss."""
        corrupted = np.mean([self.at(name, severity) for severity in self.severities], axis=0)
        lost: np.ndarray = self.at(name, 0) - corrupted
        return lost if self.higher_is_better else -lost

    def kept(self, name: str) -> np.ndarray:
        """Relative robustness: score / clean score (errors: clean / error), meaned over corruptions and severities."""
        clean = self.at(name, 0)
        cells = [value for key, value in self.scores[name].items() if key != CLEAN]
        pairs = [(cell, clean) if self.higher_is_better else (clean, cell) for cell in cells]
        shares = [np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0) for a, b in pairs]
        return np.asarray(np.mean(shares, axis=0))


def corrupted_settings(run: RunFolder) -> list[Corrupted]:
    """Read every robustness grid of a study and put those of one setting beside each other."""
    settings: dict[Cell, list[RunCell]] = {}
    for one in run.done():
        if (one.folder / ROBUSTNESS / "cells" / CLEAN[0] / "cell.json").is_file():
            cell = one.cell
            settings.setdefault(Cell(cell.study, cell.task, "", cell.protocol, cell.fraction), []).append(one)
    return [_setting(cell, runs) for cell, runs in settings.items()]


def _setting(setting: Cell, runs: Sequence[RunCell]) -> Corrupted:
    from monai_ssl_transfer.evaluation.robustness import drawn_scores, group_draws

    grids = [(one, read_grid(one.folder / ROBUSTNESS)) for one in runs]
    wanted = max((set(grid) for _, grid in grids), key=len)
    severities = tuple(sorted({severity for _, severity in wanted if severity}))
    first = next(grid for _, grid in grids if set(grid) == wanted)[CLEAN]
    known = [(row.case, row.stratum) for row in first]
    fitting, left_out = [], []
    for one, grid in grids:
        if set(grid) != wanted:
            left_out.append(f"{_name(one)} has {len(grid)} of {len(wanted)} grid cells")
        elif any([(row.case, row.stratum) for row in rows] != known for rows in grid.values()):
            left_out.append(f"{_name(one)} judged other cases")
        else:
            fitting.append((one, grid))
    weights = group_draws([row.group for row in first], DRAWS, 0)
    drawn: dict[str, list[dict[tuple[str, int], np.ndarray]]] = {}
    for one, grid in fitting:
        scored = {key: drawn_scores(rows, weights) for key, rows in grid.items()}
        drawn.setdefault(one.cell.initialisation, []).append(scored)
    record = read_json(fitting[0][0].folder / ROBUSTNESS / "cells" / CLEAN[0] / "cell.json")
    return Corrupted(
        setting,
        str(record["metric"]),
        bool(record["higher"]),
        len({row.group for row in first}),
        tuple(
            name for name in dict(sorted(wanted - {CLEAN})) if {(name, severity) for severity in severities} <= wanted
        ),
        severities,
        {name: {key: np.mean([one[key] for one in own], axis=0) for key in wanted} for name, own in drawn.items()},
        {name: len(own) for name, own in drawn.items()},
        tuple(left_out),
    )


def read_grid(folder: Path) -> Grid:
    """Read the finished cells of one robustness grid, rows of a cell in the order of case and class."""
    found = {}
    for file in sorted((folder / "cells").rglob(CELL_FILE)):
        record = read_json(file)
        rows = _cases(file.with_name("cases.csv"))
        found[str(record["corruption"]), int(record["severity"])] = sorted(rows, key=lambda r: (r.case, r.stratum))
    return found


def _cases(file: Path) -> list[JudgedCase]:
    """Read judged cases without what running a grid needs, which takes half a minute to import."""
    from monai_ssl_transfer.evaluation.robustness import JudgedCase

    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            return [
                JudgedCase(row["case"], row["group"], row["stratum"], float(row["gained"]), float(row["possible"]))
                for row in csv.DictReader(stream)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is not there or damaged: run the study's robustness again.") from error


def ends(drawn: np.ndarray, groups: int) -> tuple[float, float]:
    """Ends of the 95 % bootstrap interval; not numbers where there is one group only."""
    finite = drawn[1:][np.isfinite(drawn[1:])]
    if groups < 2 or not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, (2.5, 97.5))
    return float(low), float(high)


def _name(one: RunCell) -> str:
    return f"{one.cell.initialisation}, seed {one.seed}"
