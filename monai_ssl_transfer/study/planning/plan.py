"""The folder of a study before its runs: declaration, plan with cost and power; and one run at a time."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError, StudyError
from monai_ssl_transfer.study.declaration import DECLARATION_NAME, Declaration, read_declaration, write_declaration
from monai_ssl_transfer.study.planning.cost import MetricPower, StudyCost, done_cells, study_cost, study_power
from monai_ssl_transfer.study.planning.declaring import declare_plan
from monai_ssl_transfer.study.planning.matrix import StudyPlan
from monai_ssl_transfer.study.results import RESULTS_NAME, Results, read_results

PLAN_NAME = "plan.json"
_CHANGED = "The declaration was changed"


def declare_before_runs(plan: StudyPlan, out: Path) -> Declaration:
    """Write study.json; one that is changed after cells were run says so and keeps the earlier one beside it.

    Args:
        plan: the study.
        out: its folder.

    Raises:
        StudyError: the folder holds an imported study.
    """
    file = out / DECLARATION_NAME
    new = declare_plan(plan)
    if file.is_file():
        if not (out / PLAN_NAME).is_file():
            raise StudyError(f"{out} holds a study that was not planned here: give another folder with --out.")
        old = read_declaration(file)
        told = tuple(note for note in old.notes if note.startswith(_CHANGED))
        if replace(old, notes=tuple(note for note in old.notes if note not in told)) == _as_read(new):
            return old
        run = len(done_cells(plan, out))
        if run or told:
            earlier = f"earlier_declaration_{len(told) + 1}.json"
            write_durably(out / earlier, lambda stream: stream.write(file.read_bytes()))
            sentence = f"{_CHANGED} on {date.today().isoformat()}, after {run} cells had been run ({earlier})."
            new = replace(new, notes=(*new.notes, *told, sentence))
    write_declaration(new, file)
    return new


def _as_read(declaration: Declaration) -> Declaration:
    """A declaration as it is after writing and reading: JSON has no tuples."""
    return replace(declaration, descriptions=dict(declaration.descriptions))


def write_plan(plan: StudyPlan, out: Path | None, spreads: Mapping[str, float]) -> tuple[StudyCost, list[MetricPower]]:
    """Estimate cost and power from what the folder holds, and write plan.json.

    Args:
        plan: the study.
        out: its folder; None writes nothing.
        spreads: metric -> standard deviation between seeds, given by the user.

    Raises:
        StudyError: a spread of a metric that the study does not have.
    """
    unknown = sorted(set(spreads) - set(plan.metrics))
    if unknown:
        raise StudyError(f"{plan.file} has no metric '{unknown[0]}': it has {', '.join(plan.metrics)}.")
    cost = study_cost(plan, done_cells(plan, out), out)
    largest = max((len(one.comparisons) for one in declare_plan(plan).families), default=1)
    power = study_power(plan, _results(out), spreads, largest)
    if out is not None:
        content = {
            "format": 1,
            "title": plan.title,
            "budget": plan.budget,
            "resources": dict(plan.resources),
            "cells": [{"id": cell.id, **asdict(cell)} for cell in plan.cells()],
            "cost": {**asdict(cost), "sentences": cost.sentences(plan.resources)},
            "power": [{**_finite(asdict(one)), "comparisons": largest} for one in power],
        }
        text = json.dumps(content, indent=1) + "\n"
        write_durably(out / PLAN_NAME, lambda stream: stream.write(text.encode()))
    return cost, power


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in values.items()}


def _results(out: Path | None) -> Results | None:
    if out is None or not (out / RESULTS_NAME).is_file():
        return None
    try:
        return read_results(out / RESULTS_NAME)
    except DataError:  # a later run writes it anew
        return None


@contextlib.contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Hold a study's folder, so that no second run works in it.

    Raises:
        StudyError: another process holds it.
    """
    import fcntl

    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StudyError(f"{out} is being run by another process: wait for it, or give another --out.") from error
        yield
