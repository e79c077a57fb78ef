"""The metrics of many photographs: a collection that writes CSV and summary, and its Ignite metric."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.data import MetaTensor
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.frame_segmentation import MINIMUM_AREA, FrameMetrics, compute_frame_metrics
from monai_ssl_transfer.evaluation.segmentation_report import describe

logger = logging.getLogger(__name__)

METRIC_NAMES = tuple(field.name for field in fields(FrameMetrics))
SUMMARISED = ("dice", "iou", "precision", "recall", "hd95")
SELECTIONS = ("all", "positives")
"""Photographs whose Dice decides which model is kept: all of them, or those that show the class."""


@dataclass(frozen=True)
class FrameRow:
    """One row of `metrics.csv`: a photograph, a class, its metrics."""

    case: str
    name: str
    metrics: FrameMetrics

    @property
    def positive(self) -> bool:
        """Whether the truth shows the class."""
        return self.metrics.true_pixels > 0


class FrameSegmentationReport:
    """Collects the metrics of photographs and summarises them.

    Args:
        class_names: label i is the i-th name; the first one is the background, which is not measured.
        surfaces: also compute HD95.
        minimum_area: pixels of the smallest lesion.
    """

    def __init__(
        self,
        class_names: Sequence[str] = ("background", "polyp"),
        surfaces: bool = True,
        minimum_area: int = MINIMUM_AREA,
    ) -> None:
        self.class_names = tuple(class_names)
        self.surfaces = surfaces
        self.minimum_area = minimum_area
        self.rows: list[FrameRow] = []

    def reset(self) -> None:
        """Forget all photographs."""
        self.rows = []

    def add(self, case: str, prediction: np.ndarray, truth: np.ndarray) -> dict[str, FrameMetrics]:
        """Compare two label maps (rows, columns) of one photograph at its native size; return what was found.

        Raises:
            DataError: when they do not fit together; the message names the photograph.
        """
        try:
            found = compute_frame_metrics(prediction, truth, self.class_names, self.surfaces, self.minimum_area)
        except DataError as error:
            raise DataError(f"{case}: {error}") from error
        self.rows += [FrameRow(case, name, metrics) for name, metrics in found.items()]
        return found

    def rows_of(self, name: str, selection: str = "all") -> list[FrameRow]:
        """Rows of one class, of all photographs or of those whose truth shows it ("positives")."""
        return [row for row in self.rows if row.name == name and (selection == "all" or row.positive)]

    def mean(self, metric: str = "dice", selection: str = "all") -> dict[str, float]:
        """Mean of one metric over the photographs, per class.

        Raises:
            DataError: when there is no photograph to take the mean of.
        """
        return {name: self._mean(name, metric, selection) for name in self.class_names[1:]}

    def _mean(self, name: str, metric: str, selection: str) -> float:
        rows = self.rows_of(name, selection)
        if not rows:
            shown = f"no photograph shows {name}" if selection == "positives" else "there are no photographs"
            raise DataError(f"{shown}, so that its mean {metric} is undefined: give a larger part of the data set.")
        return float(np.mean([getattr(row.metrics, metric) for row in rows]))

    def summary(self) -> dict[str, Any]:
        """Per class: metrics over all photographs and over the positive ones, specificity, lesions."""
        return {
            "cases": len({row.case for row in self.rows}),
            "minimum_area_px": self.minimum_area,
            "class_names": list(self.class_names),
            "classes": {name: self._class_summary(name) for name in self.class_names[1:]},
        }

    def _class_summary(self, name: str) -> dict[str, Any]:
        rows, positives = self.rows_of(name), self.rows_of(name, "positives")
        normals = [row for row in rows if not row.positive]
        silent = [row for row in normals if row.metrics.predicted_pixels == 0]
        return {
            "images": len(rows),
            "positive_images": len(positives),
            "normal_images": len(normals),
            **self._table(rows),
            "positives_only": self._table(positives),
            "specificity_on_normal_images": len(silent) / len(normals) if normals else None,
            **_lesion_summary(rows),
        }

    def _table(self, rows: Sequence[FrameRow]) -> dict[str, dict[str, float]]:
        metrics = SUMMARISED if self.surfaces else SUMMARISED[:-1]
        return {metric: describe([getattr(row.metrics, metric) for row in rows]) for metric in metrics if rows}

    def write(self, folder: str | Path) -> None:
        """Write `metrics.csv` (a row per photograph and class) and `summary.json` into a folder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with (target / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["case", "class", *METRIC_NAMES])
            for row in self.rows:
                writer.writerow([row.case, row.name, *(f"{value:.8g}" for value in asdict(row.metrics).values())])
        (target / "summary.json").write_text(json.dumps(self.summary(), indent=2) + "\n", encoding="utf-8")


def _lesion_summary(rows: Sequence[FrameRow]) -> dict[str, Any]:
    lesions, found, false = (
        sum(getattr(row.metrics, name) for row in rows) for name in ("lesions", "lesions_found", "false_lesions")
    )
    return {
        "lesions": lesions,
        "lesions_found": found,
        "lesion_recall": found / lesions if lesions else None,
        "false_lesions_per_image": false / len(rows) if rows else None,
    }


def label_map(item: Tensor) -> np.ndarray:
    """Turn (1, H, W) labels, or (C, H, W) logits with C > 1, meta tensor or not, into (H, W) uint8 labels."""
    plain = (item.as_tensor() if isinstance(item, MetaTensor) else item).detach().cpu()
    return (plain[0] if plain.shape[0] == 1 else plain.argmax(dim=0)).to(torch.uint8).numpy()


class FrameSegmentationMetric(Metric):
    """Ignite metric over photographs at native size: its value is the mean Dice over photographs and classes.

    When an epoch of validation ends, ``engine.state.metrics`` also holds, per class, ``<class>_dice``, ``<class>_iou``,
    ``<class>_precision``, ``<class>_recall`` (and ``<class>_hd95`` with surfaces) of the selected photographs,
    ``<class>_lesion_recall`` and ``<class>_specificity`` of all where they are defined, and the files of the report are
    written. With several processes the photographs of all are gathered, each once.

    Args:
        report: what to compute; a fresh `FrameSegmentationReport` without HD95 by default.
        selection: photographs that count for the value: "all", or "positives", those whose truth shows the class. A
            network that never predicts anything has a Dice of 1 on every normal photograph; where many are normal,
            "positives" keeps it from being taken for a good model.
        output_dir: where `metrics.csv` and `summary.json` go; None writes nothing.
        case_key: item of the batch that names the photograph.
    """

    def __init__(
        self,
        report: FrameSegmentationReport | None = None,
        selection: str = "all",
        output_dir: str | Path | None = None,
        case_key: str = "name",
    ) -> None:
        if selection not in SELECTIONS:
            raise DataError(f"unknown selection '{selection}': choose one of {', '.join(SELECTIONS)}.")
        self.report = report if report is not None else FrameSegmentationReport(surfaces=False)
        self.selection = selection
        self.output_dir = output_dir
        self.case_key = case_key
        super().__init__()

    def reset(self) -> None:
        """Forget all photographs."""
        self.report.reset()

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Add decollated items with a name, "pred" ((C, H, W) logits or (1, H, W) labels) and "label" (1, H, W)."""
        for item in output:
            self.report.add(str(item[self.case_key]), label_map(item["pred"]), label_map(item["label"]))

    def iteration_completed(self, engine: Engine) -> None:
        """Take the decollated output of the evaluator together with the name of the photograph from its batch."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        pairs = zip(batch, output, strict=True)
        self.update([{**found, self.case_key: item[self.case_key]} for item, found in pairs])

    def compute(self) -> float:
        """Mean Dice over classes and photographs."""
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.report.rows)
            found: dict[tuple[str, str], FrameRow] = {(row.case, row.name): row for part in gathered for row in part}
            self.report.rows = list(found.values())
        return float(np.mean(list(self.report.mean("dice", self.selection).values())))

    def completed(self, engine: Engine, name: str) -> None:
        """Store the value and its details; write the files."""
        super().completed(engine, name)
        for metric in SUMMARISED if self.report.surfaces else SUMMARISED[:-1]:
            means = self.report.mean(metric, self.selection)
            engine.state.metrics.update({f"{one}_{metric}": value for one, value in means.items()})
        for one, found in self.report.summary()["classes"].items():
            shares = {"lesion_recall": found["lesion_recall"], "specificity": found["specificity_on_normal_images"]}
            engine.state.metrics.update({f"{one}_{key}": value for key, value in shares.items() if value is not None})
        if self.output_dir is not None and idist.get_rank() == 0:
            self.report.write(self.output_dir)
            logger.info("metrics of %d photographs are in %s", self.report.summary()["cases"], self.output_dir)
