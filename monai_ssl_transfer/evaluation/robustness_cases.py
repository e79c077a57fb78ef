"""What every case of a finished evaluation adds to its score, for each kind of bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.classification_report import ClassificationMetric
from monai_ssl_transfer.evaluation.depth_report import DepthErrorMetric
from monai_ssl_transfer.evaluation.detection_report import BoxPrecisionMetric
from monai_ssl_transfer.evaluation.findings import compute_placements
from monai_ssl_transfer.evaluation.findings_report import FindingsMetric
from monai_ssl_transfer.evaluation.frame_segmentation_report import FrameSegmentationMetric
from monai_ssl_transfer.evaluation.robustness import JudgedCase
from monai_ssl_transfer.evaluation.segmentation_report import CaseSegmentationMetric

Rows = list[JudgedCase]


def judged_cases(parser: ConfigParser) -> tuple[str, bool, Rows]:
    """Read the metric of a bundle's evaluation after it has run.

    Args:
        parser: of the bundle, with the evaluator that has run.

    Returns:
        Name of the score, whether higher is better, and the cases.

    Raises:
        DataError: the bundle's metric is none that is known here.
    """
    found = parser.get_parsed_content("validate#key_metric")
    metric = next(iter(found.values())) if isinstance(found, dict) else found
    for kind, read in _KINDS.items():
        if isinstance(metric, kind):
            return read(metric, parser)
    raise DataError(f"the bundle's metric {type(metric).__name__} gives no values per case: use one of the bundles'.")


def _groups(parser: ConfigParser) -> Mapping[str, str]:
    """Group of every evaluated photograph; a case without one is its own."""
    cases = parser.get_parsed_content("cases")
    return {str(one["name"]): str(one.get("group", one["name"])) for one in cases.get("evaluate", ())}


def _frames(metric: FrameSegmentationMetric, parser: ConfigParser) -> tuple[str, bool, Rows]:
    groups = _groups(parser)
    rows = [row for row in metric.report.rows if metric.selection == "all" or row.positive]
    name = "mean Dice" if metric.selection == "all" else "mean Dice of images that show it"
    return name, True, [JudgedCase(r.case, groups.get(r.case, r.case), r.name, r.metrics.dice, 1.0) for r in rows]


def _volumes(metric: CaseSegmentationMetric, parser: ConfigParser) -> tuple[str, bool, Rows]:
    parts = parser.get_parsed_content("cases") if "cases" in parser else {}
    listed = [one for part in parts.values() for one in part if "case" in one]
    patients = {str(one["case"]): str(one.get("patient", one["case"])) for one in listed}  # visits of one stay together
    rows = [
        JudgedCase(row.case, patients.get(row.case, row.case), row.name, row.metrics.dice, 1.0)
        for row in metric.report.rows
    ]
    return "mean Dice", True, rows


def _classes(metric: ClassificationMetric, parser: ConfigParser) -> tuple[str, bool, Rows]:
    if "slices" in parser:
        patients = np.asarray(SliceStore(parser.get_parsed_content("dataset_dir")).patient_numbers())
        groups = {str(key): str(patients[int(key)]) for key in metric.found}
    else:
        groups = dict(_groups(parser))
    rows = []
    for key, one in metric.found.items():
        name, right = str(key), float(int(one.probabilities.argmax()) == one.label)
        rows.append(JudgedCase(name, groups.get(name, name), metric.class_names[one.label], right, 1.0))
    return "balanced accuracy", True, rows


def _findings(metric: FindingsMetric, parser: ConfigParser) -> tuple[str, bool, Rows]:
    """Every positive's share of the AUROC of its finding: the mean over findings of their means is the macro AUROC."""
    groups, names = _groups(parser), list(metric.found)
    probabilities, truth = metric.arrays()
    rows: Rows = []
    for number, finding in enumerate(metric.class_names):
        shown = truth[:, number] > 0
        placed = compute_placements(probabilities[:, number], shown)
        if len(placed):
            positives = [name for name, one in zip(names, shown, strict=True) if one]
            rows += [
                JudgedCase(name, groups.get(name, name), finding, float(value), 1.0)
                for name, value in zip(positives, placed, strict=True)
            ]
    return "macro AUROC", True, rows


def _boxes(metric: BoxPrecisionMetric, parser: ConfigParser) -> tuple[str, bool, Rows]:
    groups = _groups(parser)
    rows = [
        JudgedCase(name, groups.get(name, name), "boxes", 2.0 * one.hits, float(one.boxes + one.predicted))
        for name, one in metric.hits().items()
    ]
    return f"F1 of boxes at score {metric.score_threshold:g} and IoU 0.5", True, rows


def _depths(metric: DepthErrorMetric, parser: ConfigParser) -> tuple[str, bool, Rows]:
    rows = [
        JudgedCase(row.name, row.video or row.name, "depth", row.metrics.rmse_mm, 1.0)
        for row in metric.rows.values()
        if np.isfinite(row.metrics.rmse_mm)
    ]
    return "mean RMSE, mm", False, rows


_KINDS: dict[type, Callable[[Any, ConfigParser], tuple[str, bool, Rows]]] = {
    FrameSegmentationMetric: _frames,
    CaseSegmentationMetric: _volumes,
    ClassificationMetric: _classes,
    FindingsMetric: _findings,
    BoxPrecisionMetric: _boxes,
    DepthErrorMetric: _depths,
}
