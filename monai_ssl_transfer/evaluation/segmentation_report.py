"""The metrics of many cases: a collection that writes CSV and summary, and its Ignite metric."""

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
from monai_ssl_transfer.evaluation.segmentation import LIVER_CLASSES, CaseMetrics, compute_case_metrics

logger = logging.getLogger(__name__)

METRIC_NAMES = tuple(field.name for field in fields(CaseMetrics))


@dataclass(frozen=True)
class CaseRow:
    """One row of `metrics.csv`: a case, a class, its metrics."""

    case: str
    name: str
    metrics: CaseMetrics


class SegmentationReport:
    """Collects the metrics of cases and summarises them.

    Args:
        classes: label values by class name; `LIVER_CLASSES` by default.
        tolerance: of the normalized surface Dice, mm.
        surfaces: also compute HD95 and NSD.
    """

    def __init__(
        self, classes: Mapping[str, Sequence[int]] | None = None, tolerance: float = 2.0, surfaces: bool = True
    ) -> None:
        self.classes = dict(LIVER_CLASSES if classes is None else classes)
        self.tolerance = tolerance
        self.surfaces = surfaces
        self.rows: list[CaseRow] = []

    def reset(self) -> None:
        """Forget all cases."""
        self.rows = []

    def add(
        self, case: str, prediction: Tensor | np.ndarray, truth: Tensor | np.ndarray, spacing: Sequence[float]
    ) -> None:
        """Compare one case; label volumes of equal shape, spacing in mm per axis."""
        found = compute_case_metrics(
            _array(prediction), _array(truth), spacing, self.classes, self.tolerance, self.surfaces
        )
        self.rows += [CaseRow(case, name, metrics) for name, metrics in found.items()]

    def summary(self) -> dict[str, Any]:
        """Mean, SD (sample), median, minimum, maximum and n of every metric per class."""
        return {
            "cases": len({row.case for row in self.rows}),
            "tolerance_mm": self.tolerance,
            "class_labels": {name: list(values) for name, values in self.classes.items()},
            "classes": {name: self._class_summary(name) for name in self.classes},
        }

    def _class_summary(self, name: str) -> dict[str, dict[str, float]]:
        table: dict[str, dict[str, float]] = {}
        for metric in METRIC_NAMES:
            values = np.asarray([getattr(row.metrics, metric) for row in self.rows if row.name == name], dtype=float)
            if values.size == 0 or np.isnan(values).all():
                continue
            table[metric] = describe(values)
        return table

    def mean(self, metric: str = "dice") -> dict[str, float]:
        """Mean of one metric over the cases, per class."""
        return {
            name: float(np.mean([getattr(row.metrics, metric) for row in self.rows if row.name == name]))
            for name in self.classes
        }

    def write(self, folder: str | Path) -> None:
        """Write `metrics.csv` (a row per case and class) and `summary.json` into a folder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with (target / "metrics.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["case", "class", *METRIC_NAMES])
            for row in self.rows:
                writer.writerow([row.case, row.name, *(f"{value:.6g}" for value in asdict(row.metrics).values())])
        (target / "summary.json").write_text(json.dumps(self.summary(), indent=2) + "\n")


def describe(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Mean, SD (sample; 0 for a single value), median, minimum, maximum and n of the values of one metric."""
    found = np.asarray(values, dtype=float)
    return {
        "mean": float(found.mean()),
        "sd": float(found.std(ddof=1)) if found.size > 1 else 0.0,
        "median": float(np.median(found)),
        "min": float(found.min()),
        "max": float(found.max()),
        "n": int(found.size),
    }


def _array(labels: Tensor | np.ndarray) -> np.ndarray:
    return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)


def label_volume(item: Tensor) -> np.ndarray:
    """(1, R, C, Z) labels, meta tensor or not, to (R, C, Z) uint8."""
    plain = item.as_tensor() if isinstance(item, MetaTensor) else item
    return _array(plain[0].to(torch.uint8))


def case_name(item: Mapping[str, Any], found: Mapping[str, Any], case_key: str = "case") -> str:
    """Name of a case, from its batch and its output; without one (MONAI Label gives files only) that of its file."""
    if item.get(case_key):
        return str(item[case_key])
    meta = getattr(found["image"], "meta", {})
    return Path(str(meta.get("filename_or_obj", "unnamed"))).name


def voxel_spacing(image: Tensor) -> list[float]:
    """Spacing in mm of the three axes of a volume, from its affine.

    Raises:
        DataError: when it has none.
    """
    if not isinstance(image, MetaTensor):
        raise DataError("a volume carries no affine, so distances in mm are unknown: load it with LoadImaged.")
    affine = np.asarray(image.affine.cpu(), dtype=float).reshape(-1, 4, 4)[0]
    return [float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)]


class CaseSegmentationMetric(Metric):
    """Ignite metric over whole volumes: its value is the mean Dice over cases and classes; the rest comes along.

    When an epoch of validation ends, ``engine.state.metrics`` also holds ``<class>_dice`` (and ``<class>_hd95``,
    ``<class>_nsd`` with surfaces), and the files of the report are written. With several
    processes the cases of all are gathered.

    Args:
        report: what to compute; a fresh `SegmentationReport` without surfaces by default.
        output_dir: where `metrics.csv` and `summary.json` go; None writes nothing.
        case_key: item of the batch that names the case.
    """

    def __init__(
        self, report: SegmentationReport | None = None, output_dir: str | Path | None = None, case_key: str = "case"
    ) -> None:
        self.report = report if report is not None else SegmentationReport(surfaces=False)
        self.output_dir = output_dir
        self.case_key = case_key
        super().__init__()

    def reset(self) -> None:
        """Forget all cases."""
        self.report.reset()

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Add decollated items with "case", "image", "pred" and "label", each image (1, R, C, Z)."""
        for item in output:
            spacing = voxel_spacing(item["image"])
            self.report.add(str(item[self.case_key]), label_volume(item["pred"]), label_volume(item["label"]), spacing)

    def iteration_completed(self, engine: Engine) -> None:
        """Take the decollated output of the evaluator together with the name of the case from its batch."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        pairs = zip(batch, output, strict=True)
        self.update([{**found, self.case_key: case_name(item, found, self.case_key)} for item, found in pairs])

    def compute(self) -> float:
        """Mean Dice over classes and cases."""
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.report.rows)
            found: dict[tuple[str, str], CaseRow] = {(row.case, row.name): row for part in gathered for row in part}
            self.report.rows = list(found.values())
        return float(np.mean(list(self.report.mean("dice").values())))

    def completed(self, engine: Engine, name: str) -> None:
        """Store the value and its details; write the files."""
        super().completed(engine, name)
        for metric in ("dice", "hd95", "nsd") if self.report.surfaces else ("dice",):
            engine.state.metrics.update({f"{n}_{metric}": v for n, v in self.report.mean(metric).items()})
        if self.output_dir is not None and idist.get_rank() == 0:
            self.report.write(self.output_dir)
            logger.info("metrics of %d cases are in %s", self.report.summary()["cases"], self.output_dir)
