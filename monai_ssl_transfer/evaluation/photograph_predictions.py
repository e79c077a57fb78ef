"""The table of predictions for photographs: file, truth where it is known, predicted class and all probabilities."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.csv"
"""Name of the table beside `metrics.csv`."""
_HALF = 0.5


def path_below(file: str | Path, root: str | Path | None) -> str:
    """Path of a file below a folder, or the whole path of a file elsewhere."""
    path = Path(file)
    inside = root is not None and path.is_relative_to(root)
    return path.relative_to(root).as_posix() if inside and root is not None else path.as_posix()


def prediction_cells(row: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Name of the most probable class, then all probabilities."""
    return [class_names[int(row.argmax())], *(f"{value:.6f}" for value in row)]


def joined_findings(shown: np.ndarray, class_names: Sequence[str]) -> str:
    """Names of the findings that are not 0, joined by ``|``; empty without any."""
    return "|".join(name for name, one in zip(class_names, shown, strict=True) if one)


def finding_cells(row: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Names of the findings of a probability of at least one half, then all probabilities."""
    return [joined_findings(row >= _HALF, class_names), *(f"{value:.6f}" for value in row)]


def start_predictions(path: Path, class_names: Sequence[str]) -> None:
    """Begin a table of predictions: "file", "truth", "predicted", and a probability per class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a file's name may hold bytes that are no text: they are written as they are
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream).writerow(["file", "truth", "predicted", *class_names])


def append_rows(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Add rows to a table."""
    with path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream).writerows(rows)


class PhotographPredictionWriter:
    """MONAI handler for inference: one CSV row per photograph with the predicted class and all probabilities.

    The columns are those of `predictions.csv` of an evaluation, with an empty "truth". Rows appear as they are made, so
    that memory does not grow with the number of photographs.

    Args:
        path: the CSV file.
        class_names: one per class, in the order of the logits.
        multilabel: whether a photograph may show several of them or none, so that each output is a sigmoid.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], multilabel: bool = False) -> None:
        self.path = Path(path)
        self.multilabel = multilabel
        self.class_names = list(class_names)
        self.rows = 0

    def attach(self, engine: Engine) -> None:
        """Connect to an evaluator that does not decollate."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(
            Events.COMPLETED, lambda _: logger.info("predictions for %d photographs are in %s", self.rows, self.path)
        )

    def _started(self, _: Engine) -> None:
        self.rows = 0
        start_predictions(self.path, self.class_names)

    def _write(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        logits = output["pred"].detach().float()
        probabilities = (logits.sigmoid() if self.multilabel else logits.softmax(dim=1)).cpu().numpy()
        cells = finding_cells if self.multilabel else prediction_cells
        names = list(batch["name"])
        rows = [[name, "", *cells(row, self.class_names)] for name, row in zip(names, probabilities, strict=True)]
        append_rows(self.path, rows)
        self.rows += len(names)
