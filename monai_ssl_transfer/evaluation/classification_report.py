"""Files of a classification run: probabilities per slice, metrics per class, and a summary."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from torch import Tensor

from monai_ssl_transfer.evaluation.classification import (
    ClassificationMetrics,
    ClassMetrics,
    compute_classification_metrics,
)

logger = logging.getLogger(__name__)

TOGETHER = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")


def write_classification(metrics: ClassificationMetrics, folder: str | Path) -> None:
    """Write `metrics.csv` (a row per class) and `summary.json`; what is not defined is empty or null."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with (target / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(ClassMetrics)])
        writer.writerows([_cell(value) for value in astuple(row)] for row in metrics.classes)
    summary: dict[str, Any] = {name: _number(getattr(metrics, name)) for name in TOGETHER}
    summary |= {"n": metrics.n, "absent_classes": list(metrics.absent)}
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


class ClassificationMetric(Metric):
    """Ignite metric over all samples: its value is the balanced accuracy; accuracy, macro F1 and AUROC come along.

    Args:
        class_names: one per class, in the order of the logits.
        output_dir: where `metrics.csv` and `summary.json` go; None writes nothing.
    """

    def __init__(self, class_names: Sequence[str], output_dir: str | Path | None = None) -> None:
        self.class_names = list(class_names)
        self.output_dir = output_dir
        self.found: dict[int, tuple[np.ndarray, int]] = {}
        super().__init__()

    def reset(self) -> None:
        """Forget all samples."""
        self.found = {}

    def update(self, output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Add (logits (B, classes), labels (B,), index (B,)); a sample that comes twice counts once."""
        probabilities = output[0].detach().float().softmax(dim=1).cpu().numpy()
        for row, label, index in zip(probabilities, output[1].tolist(), output[2].tolist(), strict=True):
            self.found[int(index)] = (row, int(label))

    def iteration_completed(self, engine: Engine) -> None:
        """Take logits and labels from the output and the index from the batch of an evaluator without decollating."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        self.update((output["pred"], output["label"], torch.as_tensor(batch["index"])))

    def metrics(self) -> ClassificationMetrics:
        """Metrics of everything seen by any process."""
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.found)
            self.found = {index: value for part in gathered for index, value in part.items()}
        order = sorted(self.found)
        probabilities = np.stack([self.found[i][0] for i in order]) if order else np.zeros((0, len(self.class_names)))
        labels = np.asarray([self.found[i][1] for i in order], dtype=np.int64)
        return compute_classification_metrics(probabilities, labels, self.class_names)

    def compute(self) -> float:
        """Balanced accuracy."""
        self.result = self.metrics()
        return self.result.balanced_accuracy

    def completed(self, engine: Engine, name: str) -> None:
        """Store the value and its companions; write the files."""
        super().completed(engine, name)
        engine.state.metrics.update({key: getattr(self.result, key) for key in TOGETHER})
        if self.result.absent:
            logger.warning("no sample of class %s: the means leave it out", ", ".join(self.result.absent))
        if self.output_dir is not None and idist.get_rank() == 0:
            write_classification(self.result, self.output_dir)
            logger.info("metrics of %d slices are in %s", self.result.n, self.output_dir)


class ProbabilityWriter:
    """MONAI handler for inference: one CSV row per slice with its origin, the predicted class and all probabilities.

    Args:
        path: the CSV file.
        class_names: one per class, in the order of the logits.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str]) -> None:
        self.path = Path(path)
        self.class_names = list(class_names)
        self.rows = 0

    def attach(self, engine: Engine) -> None:
        """Connect to an evaluator that does not decollate."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, lambda _: logger.info("%d slices are in %s", self.rows, self.path))

    def _started(self, _: Engine) -> None:
        self.rows = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as stream:
            csv.writer(stream).writerow(["slice", "series", "position_mm", "predicted", *self.class_names])

    def _write(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        probabilities = output["pred"].detach().float().softmax(dim=1).cpu().numpy()
        indices, series, positions = torch.as_tensor(batch["index"]).tolist(), batch["series"], batch["position"]
        with self.path.open("a", newline="") as stream:
            writer = csv.writer(stream)
            for index, key, position, row in zip(indices, series, positions, probabilities, strict=True):
                name = self.class_names[int(row.argmax())]
                writer.writerow([index, key, f"{float(position):.3f}", name, *(f"{value:.6f}" for value in row)])
        self.rows += len(indices)
