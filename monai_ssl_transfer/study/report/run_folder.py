"""The folder of a study that was run here, as far as it is more than a table and a declaration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.cell_values import CELL_FILE, DONE, read_cell
from monai_ssl_transfer.study.declaration import Declaration
from monai_ssl_transfer.study.planning.matrix import slug
from monai_ssl_transfer.study.results import CELL_COLUMNS, Cell

CELLS, PRETRAINING, RANKING, EMBEDDINGS = "cells", "pretraining", "ranking", "embeddings"
PRETRAINED = "done.json"
"""Record of a pretraining that ended."""


@dataclass(frozen=True)
class RunCell:
    """One run of a study.

    Args:
        folder: of the run.
        cell: what was trained and judged.
        seed: of it.
        record: its cell.json.
    """

    folder: Path
    cell: Cell
    seed: int
    record: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether it ended well."""
        return self.record["status"] == DONE

    @property
    def evaluation(self) -> Path:
        """Folder of its evaluation."""
        return self.folder / str(self.record.get("evaluation") or "eval")


@dataclass(frozen=True)
class RunFolder:
    """What was run.

    Args:
        folder: of the study.
        cells: every run with a whole record, ended well or not, in the declared order.
        pretraining: initialisation -> record of the pretraining that the study ran first.
        settings: study.yaml; empty where there is none.
    """

    folder: Path
    cells: tuple[RunCell, ...]
    pretraining: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]

    def done(self) -> list[RunCell]:
        """The runs that ended well."""
        return [one for one in self.cells if one.done]


def read_run_folder(study: Path, declaration: Declaration) -> RunFolder | None:
    """Read what a study ran; None where its results were imported.

    A cell without a record was not run to its end: it is left out here, and the report lists it by the declaration.

    Args:
        study: its folder.
        declaration: whose order of cells is taken; runs that are not declared come last.

    Raises:
        DataError: a record is damaged.
    """
    if not (study / CELLS).is_dir():
        return None
    folders = sorted(file.parent for file in (study / CELLS).glob(f"*/{CELL_FILE}"))
    cells = []
    for folder in folders:
        record = read_cell(folder)
        try:
            cell = Cell(*(record["cell"][column] for column in CELL_COLUMNS))
        except KeyError as error:
            raise DataError(
                f"{folder / CELL_FILE} does not say its {error.args[0]}: delete the cell and run again."
            ) from error
        cells.append(RunCell(folder, cell, int(record["cell"]["seed"]), record))
    order = {one.cell: number for number, one in enumerate(declaration.cells)}
    cells.sort(key=lambda one: (order.get(one.cell, len(order)), one.seed))
    names = {slug(one.cell.initialisation): one.cell.initialisation for one in cells}
    before = {names.get(name, name): record for name, record in _pretraining(study / PRETRAINING).items()}
    return RunFolder(study, tuple(cells), before, _settings(study / "study.yaml"))


def read_json(file: Path) -> Any:
    """Read a file that the study wrote.

    Raises:
        DataError: it is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is damaged: delete it and run the study again, which makes it anew.") from error


def _pretraining(folder: Path) -> dict[str, Mapping[str, Any]]:
    found = sorted(folder.glob(f"*/{PRETRAINED}"))
    return {file.parent.name: read_json(file) for file in found}


def _settings(file: Path) -> Mapping[str, Any]:
    """The study's YAML, for what it states about budget and families."""
    if not file.is_file():
        return {}
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{file} is damaged: put the study's YAML there again.") from error
    return content if isinstance(content, dict) else {}
