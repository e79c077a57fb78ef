"""What a study costs in time, and how small a difference it can find: measured where something was run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.study.planning.matrix import PlannedCell, StudyPlan, slug
from monai_ssl_transfer.study.records import read_record
from monai_ssl_transfer.study.results import Results
from monai_ssl_transfer.study.statistics.power import smallest_difference

MEASURED, SCALED, STATED, UNKNOWN = "measured", "scaled", "stated", "unknown"
_TELLING = 2.0
"""Clock and processor time are both told from this ratio on."""


@dataclass(frozen=True)
class CellCost:
    """Seconds of one cell.

    Args:
        seconds: wall clock on one of the study's workers; None where nothing is known.
        basis: measured (mean of the same task, protocol and fraction), scaled (another fraction of the same task and
            protocol, by the share of labels), stated (in the YAML, by the share of labels) or unknown.
    """

    seconds: float | None
    basis: str


@dataclass(frozen=True)
class StudyCost:
    """Cost of all that is left.

    Args:
        cells: number of all cells.
        done: of them, those that were run.
        by_basis: number of the cells that are left by the basis of their cost.
        cell_hours: of the cells that are left and whose cost is known.
        processor_hours: the same by the processor time of the cells that were measured.
        pretraining_hours: of pretrainings that are left and whose cost is known.
        pretraining_unknown: names of the others.
    """

    cells: int
    done: int
    by_basis: Mapping[str, int]
    cell_hours: float
    processor_hours: float
    pretraining_hours: float
    pretraining_unknown: tuple[str, ...]

    def sentences(self, resources: Mapping[str, float]) -> list[str]:
        """Return the estimate in words: hours of CPU and GPU and what they are based on."""
        hours = self.cell_hours + self.pretraining_hours
        told = [f"{self.cells} cells, {self.done} of them done, {self.cells - self.done} left."]
        gpu = f" and {hours * resources['gpus']:.2f} GPU-hours" if resources["gpus"] else ""
        bases = ", ".join(f"{count} {_WORDS[basis]}" for basis, count in self.by_basis.items())
        told.append(f"Left: {hours * max(resources['cpus'], 0.001):.2f} CPU-hours{gpu}; cells: {bases or 'none'}.")
        held = self.cell_hours * max(resources["cpus"], 0.001)
        if max(held, self.processor_hours) > _TELLING * min(held, self.processor_hours):
            told.append(
                f"Of it cells by the clock: {held:.2f} CPU-hours; by the processor time of the measured ones: "
                f"{self.processor_hours:.2f} (they shared the machine, waited, or used other than their cores)."
            )
        if self.pretraining_unknown:
            told.append(f"Not in it: pretraining of {', '.join(self.pretraining_unknown)} (state its `seconds`).")
        if self.by_basis.get(UNKNOWN):
            told.append(f"Not in it: {self.by_basis[UNKNOWN]} cells without a basis (`--pilot`, or state `seconds`).")
        return told


_WORDS = {
    MEASURED: "measured on cells of the same setting",
    SCALED: "scaled from another fraction",
    STATED: "stated in the file",
    UNKNOWN: "unknown",
}


def done_cells(plan: StudyPlan, out: Path | None) -> dict[PlannedCell, Mapping[str, Any]]:
    """Return the records of the plan's cells that were run to their end."""
    found = {}
    for cell in plan.cells() if out is not None else ():
        record = read_record(out / "cells" / cell.id / "cell.json") if out is not None else None
        if record is not None and record.get("status") == "done":
            found[cell] = record
    return found


def study_cost(plan: StudyPlan, done: Mapping[PlannedCell, Mapping[str, Any]], out: Path | None) -> StudyCost:
    """Estimate what is left of a study.

    Args:
        plan: the study.
        done: records of finished cells.
        out: its folder; None: nothing was run.
    """
    cpus = max(plan.resources["cpus"], 0.001)
    measured: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    processor: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for cell, record in done.items():
        key = cell.task, cell.protocol, cell.fraction
        measured[key].append(float(record["seconds"]))
        processor[key].append(float(record.get("cpu_seconds") or measured[key][-1] * cpus))
    left = [cell for cell in plan.cells() if cell not in done]
    costs = [cell_cost(plan, cell, measured) for cell in left]
    used = [cell_cost(plan, cell, processor) for cell in left]
    used_seconds = sum((one.seconds or 0.0) * (cpus if one.basis == STATED else 1.0) for one in used)
    by_basis: dict[str, int] = defaultdict(int)
    for one in costs:
        by_basis[one.basis] += 1
    waiting = [one for one in plan.initialisations.values() if one.pretraining is not None]
    waiting = [
        one for one in waiting if out is None or not (out / "pretraining" / slug(one.name) / "done.json").is_file()
    ]
    known = [one.pretraining.seconds for one in waiting if one.pretraining and one.pretraining.seconds is not None]
    return StudyCost(
        cells=len(plan.cells()),
        done=len(done),
        by_basis=dict(by_basis),
        cell_hours=sum(one.seconds or 0.0 for one in costs) / 3600,
        processor_hours=used_seconds / 3600,
        pretraining_hours=sum(known) / 3600,
        pretraining_unknown=tuple(one.name for one in waiting if one.pretraining and one.pretraining.seconds is None),
    )


def cell_cost(
    plan: StudyPlan, cell: PlannedCell, measured: Mapping[tuple[str, str, float], Sequence[float]]
) -> CellCost:
    """Estimate one cell from the nearest thing that is known."""
    own = measured.get((cell.task, cell.protocol, cell.fraction))
    if own:
        return CellCost(float(np.mean(own)), MEASURED)
    others = {
        fraction: seconds
        for (task, protocol, fraction), seconds in measured.items()
        if (task, protocol) == (cell.task, cell.protocol)
    }
    if others:
        nearest = min(others, key=lambda fraction: abs(np.log(fraction / cell.fraction)))
        return CellCost(float(np.mean(others[nearest])) * cell.fraction / nearest, SCALED)
    own_seconds = plan.protocols[cell.protocol].seconds
    if own_seconds is not None:
        return CellCost(own_seconds, STATED)
    stated = plan.tasks[cell.task].seconds
    if stated is not None and not plan.protocols[cell.protocol].probe:
        return CellCost(stated * cell.fraction, STATED)
    return CellCost(None, UNKNOWN)


@dataclass(frozen=True)
class MetricPower:
    """The smallest difference that a study can find in one metric.

    Args:
        metric: its name.
        spread: standard deviation between seeds.
        basis: where that comes from.
        difference: found with 80 % probability at 5 %, without correction; not a number without a spread.
        corrected: the same at the hardest step of Holm over the largest family.
    """

    metric: str
    spread: float
    basis: str
    difference: float
    corrected: float


def study_power(plan: StudyPlan, results: Results | None, given: Mapping[str, float], tests: int) -> list[MetricPower]:
    """Compute the power of a study for every metric.

    Args:
        plan: the study.
        results: of cells that were run; None where there are none.
        given: metric -> standard deviation, which comes before what was seen.
        tests: comparisons of the largest family.
    """
    found = []
    for name, rule in plan.metrics.items():
        spread, basis = _spread(plan, name, results, given, rule.spread)
        n = len(plan.seeds)
        corrected = smallest_difference(spread, n, alpha=0.05 / max(tests, 1))
        found.append(MetricPower(name, spread, basis, smallest_difference(spread, n), corrected))
    return found


def _spread(
    plan: StudyPlan, metric: str, results: Results | None, given: Mapping[str, float], stated: float | None
) -> tuple[float, str]:
    """Root of the mean variance over the settings that have two seeds or more, else what was stated."""
    if metric in given:
        return given[metric], "given on the command line"
    squares, freedom = 0.0, 0
    for cell in results.cells() if results is not None else ():
        values = list(results.per_seed(cell, metric).values()) if results is not None else []
        if len(values) > 1:
            squares += float(np.var(values, ddof=1)) * (len(values) - 1)
            freedom += len(values) - 1
    if freedom:
        return float(np.sqrt(squares / freedom)), f"seen in runs of this study ({freedom} degrees of freedom)"
    if stated is not None:
        return stated, "stated in the file"
    return float("nan"), "unknown: give `spread` in the file, --sd METRIC=VALUE or a pilot of 2 seeds"
