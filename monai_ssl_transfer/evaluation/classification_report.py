"""Files of a classification run: metrics per class, a summary, and the prediction for every image or slice."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.classification import (
    ClassificationMetrics,
    ClassMetrics,
    compute_classification_metrics,
)
from monai_ssl_transfer.evaluation.operating_points import FindingMetrics, compute_finding_metrics
from monai_ssl_transfer.evaluation.photograph_predictions import (
    PREDICTIONS,
    append_rows,
    path_below,
    prediction_cells,
    start_predictions,
)

logger = logging.getLogger(__name__)

TOGETHER = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auroc")


@dataclass(frozen=True)
class FindingOptions:
    """A class that is looked for, so that thresholds on its probability matter.

    Args:
        name: the class.
        specificities: where to give the sensitivity.
    """

    name: str
    specificities: tuple[float, ...] = (0.9, 0.95)


def write_classification(
    metrics: ClassificationMetrics, folder: str | Path, extra: Mapping[str, Any] | None = None
) -> None:
    """Write `metrics.csv` (a row per class) and `summary.json`; what is not defined is empty or null.

    Args:
        metrics: of all samples.
        folder: made if it does not exist.
        extra: more entries of the summary.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with (target / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(ClassMetrics)])
        writer.writerows([_cell(value) for value in astuple(row)] for row in metrics.classes)
    summary: dict[str, Any] = {name: _number(getattr(metrics, name)) for name in TOGETHER}
    summary |= {"n": metrics.n, "absent_classes": list(metrics.absent), **(extra or {})}
    (target / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def finding_summary(options: FindingOptions, found: FindingMetrics) -> dict[str, Any]:
    """The entry "finding" of the summary; a threshold that calls nothing positive is null."""
    points = [{name: _number(value) for name, value in vars(point).items()} for point in found.points]
    return {
        "class": options.name,
        "auroc": _number(found.auroc),
        "average_precision": _number(found.average_precision),
        "positives": found.positives,
        "negatives": found.negatives,
        "sensitivity_at_specificity": points,
    }


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class _Sample:
    probabilities: np.ndarray
    label: int
    file: str


class ClassificationMetric(Metric):
    """Ignite metric over all samples, gathered over all processes; one that comes twice counts once.

    A sample is known by its "name" in the batch (photographs), else by its "index" (slices of a store). The metric's
    value is one of its numbers, the others come along in ``engine.state.metrics``: accuracy, balanced accuracy, macro
    F1, MCC and macro AUROC; with ``finding`` also ``average_precision`` and ``sensitivity_at_specificity_0.9`` etc.

    Args:
        class_names: one per class, in the order of the logits.
        output_dir: where `metrics.csv`, `summary.json` and, for photographs, `predictions.csv` go; None writes nothing.
        value: the number that the metric stands for.
        finding: the class that is looked for, if there is one.
        support: images by part and class (`class_support`), for the summary.
        root: files are named relative to this folder where they lie below it.

    Raises:
        DataError: the finding is no class.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        output_dir: str | Path | None = None,
        value: str = "balanced_accuracy",
        finding: FindingOptions | None = None,
        support: Mapping[str, Mapping[str, int]] | None = None,
        root: str | Path | None = None,
    ) -> None:
        self.class_names = list(class_names)
        self.output_dir = output_dir
        self.value = value
        self.finding = finding
        self.support = support
        self.root = root
        self.found: dict[int | str, _Sample] = {}
        if finding is not None and finding.name not in self.class_names:
            raise DataError(f"the finding '{finding.name}' is none of the classes {', '.join(self.class_names)}.")
        super().__init__()

    def reset(self) -> None:
        """Forget all samples."""
        self.found = {}

    def update(self, output: tuple[Tensor, Tensor, Sequence[int | str], Sequence[str]]) -> None:
        """Add (logits (B, classes), labels (B,), names or numbers (B), files (B), empty texts where there are none)."""
        probabilities = output[0].detach().float().softmax(dim=1).cpu().numpy()
        for row, label, key, file in zip(probabilities, output[1].tolist(), output[2], output[3], strict=True):
            self.found[key] = _Sample(row, int(label), file)

    def iteration_completed(self, engine: Engine) -> None:
        """Take logits and labels from the output and the names from the batch of an evaluator without decollating."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        keys = list(batch["name"]) if "name" in batch else torch.as_tensor(batch["index"]).tolist()
        files = [path_below(one, self.root) for one in batch.get("image_path", ())] or [""] * len(keys)
        self.update((output["pred"], output["label"], keys, files))

    def metrics(self) -> ClassificationMetrics:
        """Metrics of everything seen by any process."""
        self._gather()
        return compute_classification_metrics(self._probabilities(), self._labels(), self.class_names)

    def _gather(self) -> None:
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.found)
            self.found = {key: value for part in gathered for key, value in part.items()}
        self.found = {key: self.found[key] for key in sorted(self.found)}

    def _probabilities(self) -> np.ndarray:
        rows = [sample.probabilities for sample in self.found.values()]
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)))

    def _labels(self) -> np.ndarray:
        return np.asarray([sample.label for sample in self.found.values()], dtype=np.int64)

    def compute(self) -> float:
        """The number that the metric stands for."""
        self.result = self.metrics()
        self.numbers = {key: float(getattr(self.result, key)) for key in TOGETHER}
        self.extra: dict[str, Any] = {} if self.support is None else {"support": self.support}
        if self.finding is not None:
            self._judge_finding(self.finding)
        if self.value not in self.numbers:
            raise DataError(f"the metric has no '{self.value}': choose one of {', '.join(self.numbers)}.")
        return self.numbers[self.value]

    def _judge_finding(self, finding: FindingOptions) -> None:
        number = self.class_names.index(finding.name)
        found = compute_finding_metrics(
            self._probabilities()[:, number], self._labels() == number, finding.specificities
        )
        self.numbers |= {"auroc": found.auroc, "average_precision": found.average_precision}
        self.numbers |= {
            f"sensitivity_at_specificity_{point.specificity_asked:g}": point.sensitivity for point in found.points
        }
        self.extra["finding"] = finding_summary(finding, found)

    def completed(self, engine: Engine, name: str) -> None:
        """Store the value and its companions; write the files."""
        super().completed(engine, name)
        engine.state.metrics.update(self.numbers)
        if self.result.absent:
            logger.warning("no sample of class %s: the means leave it out", ", ".join(self.result.absent))
        if self.output_dir is not None and idist.get_rank() == 0:
            self._write(Path(self.output_dir))

    def _write(self, folder: Path) -> None:
        write_classification(self.result, folder, self.extra)
        if any(sample.file for sample in self.found.values()):
            start_predictions(folder / PREDICTIONS, self.class_names)
            rows = [
                [one.file, self.class_names[one.label], *prediction_cells(one.probabilities, self.class_names)]
                for one in self.found.values()
            ]
            append_rows(folder / PREDICTIONS, rows)
        logger.info("metrics of %d samples are in %s", self.result.n, folder)


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
        origins = zip(indices, series, positions, probabilities, strict=True)
        rows = [
            [index, key, f"{float(position):.3f}", *prediction_cells(row, self.class_names)]
            for index, key, position, row in origins
        ]
        append_rows(self.path, rows)
        self.rows += len(indices)
