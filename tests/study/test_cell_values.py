"""Every kind of evaluation becomes rows of the tidy table; the files are those that the reports really write."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.classification_report import ClassificationMetric, FindingOptions
from monai_ssl_transfer.evaluation.depth_report import DepthErrorMetric
from monai_ssl_transfer.evaluation.detection_report import BoxPrecisionMetric
from monai_ssl_transfer.evaluation.frame_segmentation_report import FrameSegmentationReport
from monai_ssl_transfer.evaluation.segmentation_report import SegmentationReport
from monai_ssl_transfer.study.cell_values import values_of
from monai_ssl_transfer.study.results import Results

CELL = {"study": "s", "task": "t", "initialisation": "own", "protocol": "p", "fraction": 0.5, "seed": 3}


def cell(folder: Path, status: str = "done") -> Path:
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    (folder / "cell.json").write_text(json.dumps({"cell": CELL, "status": status, "evaluation": "eval"}))
    return folder


def judged(folder: Path, rows: list[tuple[Any, ...]]) -> None:
    with (folder / "eval" / "judged.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "group", "stratum", "gained", "possible"), *rows])


def table(folder: Path) -> dict[str, dict[str, float]]:
    """Metric -> case -> value, after the checks of the table of results."""
    rows = values_of(folder)
    assert len(Results.of_rows(rows)) == len(rows)
    assert all({key: row[key] for key in CELL} == CELL for row in rows)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["metric"], {})[row["case"]] = row["value"]
    return found


def test_photographs_of_one_class(tmp_path: Path) -> None:
    report = FrameSegmentationReport(surfaces=False)
    truth = np.zeros((20, 20), np.uint8)
    truth[:10] = 1
    half = truth.copy()
    half[5:10] = 0
    report.add("a", half, truth)
    report.add("b", np.zeros_like(truth), np.zeros_like(truth))
    report.write(cell(tmp_path) / "eval")
    judged(tmp_path, [("a", "patient 1", "polyp", 0.6667, 1), ("b", "patient 2", "polyp", 1, 1)])
    found = table(tmp_path)
    assert set(found) == {"dice", "iou", "precision", "recall", "dice_positives"}, "no surfaces were asked for"
    assert found["dice"] == pytest.approx({"a": 2 / 3, "b": 1.0})
    assert found["dice_positives"] == pytest.approx({"a": 2 / 3}), "nothing is to be found in b"
    assert {row["case"]: row["group"] for row in values_of(tmp_path)} == {"a": "patient 1", "b": "patient 2"}


def test_volumes_of_two_classes(tmp_path: Path) -> None:
    report = SegmentationReport(surfaces=False)
    truth = np.zeros((6, 6, 6), np.uint8)
    truth[1:5, 1:5, 1:5] = 1
    truth[2:4, 2:4, 2:4] = 2
    report.add("7", np.minimum(truth, 1), truth, (1.0, 1.0, 1.0))
    report.write(cell(tmp_path) / "eval")
    found = table(tmp_path)
    assert (found["liver_dice"]["7"], found["tumour_dice"]["7"], found["dice"]["7"]) == (1.0, 0.0, 0.5)
    assert "hd95" not in found and "tumour_dice_positives" not in found


def test_classes(tmp_path: Path) -> None:
    """With a class that is looked for; sklearn says the same."""
    rng = np.random.default_rng(0)
    logits, labels = torch.tensor(rng.normal(size=(30, 3))), torch.tensor(rng.integers(0, 3, 30))
    finding = FindingOptions("c", (0.5, 0.9))
    metric = ClassificationMetric(("a", "b", "c"), cell(tmp_path) / "eval", finding=finding)
    names = [f"i{n}" for n in range(30)]
    metric.update((logits, labels, names, [f"{name}.png" for name in names]))
    metric.compute()
    metric._write(tmp_path / "eval")
    truth, guess = labels.numpy(), logits.argmax(1).numpy()
    right = {f"i{n}": float(t == g) for n, (t, g) in enumerate(zip(truth, guess, strict=True))}
    without = table(tmp_path)["accuracy"]
    assert without == {f"{name}.png": value for name, value in right.items()}, "from predictions.csv"
    judged(tmp_path, [(name, f"p{n // 3}", "x", value, 1) for n, (name, value) in enumerate(right.items())])
    found = table(tmp_path)
    assert found["accuracy"] == right
    share = torch.softmax(logits, 1)[:, 2].numpy()
    expected = {
        "macro_f1": sk.f1_score(truth, guess, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
        "mcc": sk.matthews_corrcoef(truth, guess),
        "average_precision": sk.average_precision_score(truth == 2, share),
    }
    assert {name: found[name][""] for name in expected} == pytest.approx(expected)
    assert {"auroc", "sensitivity_at_specificity_0.5", "sensitivity_at_specificity_0.9"} <= set(found)
    assert "n" not in found and "positives" not in found


def test_every_draw_of_a_probe_counts(tmp_path: Path) -> None:
    """Of two draws: one is right in half of the cases, the other in all; b has no patient of its own in either."""
    draws = cell(tmp_path) / "eval" / "draws"
    for name, right, f1 in (("0", (1, 0), 0.4), ("1", (1, 1), 1.0)):
        folder = draws / name
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("name,support,auroc\nx,2,0.5\n")
        (folder / "summary.json").write_text(json.dumps({"accuracy": sum(right) / 2, "macro_f1": f1, "auroc": None}))
        rows = [f"{case},p,x,{value},1" for case, value in zip("ab", right, strict=True)]
        (folder / "judged.csv").write_text("\n".join(["case,group,stratum,gained,possible", *rows]))
    (tmp_path / "eval" / "metrics.csv").write_text("name,support,auroc\nx,2,0.5\n")
    assert table(tmp_path) == {"accuracy": {"a": 1.0, "b": 0.5}, "macro_f1": {"": 0.7}}


def test_several_findings_per_image(tmp_path: Path) -> None:
    """In the columns of `findings_report`; y is shown by no image."""
    text = "name,positives,negatives,auroc,average_precision\nx,1,1,0.5,0.75\ny,0,2,,\n"
    (cell(tmp_path) / "eval" / "metrics.csv").write_text(text)
    (tmp_path / "eval" / "summary.json").write_text('{"auroc": 0.5, "average_precision": null, "n": 2}')
    judged(tmp_path, [("a", "p", "x", 0.5, 1)])
    assert table(tmp_path) == {"auroc": {"": 0.5}, "x_auroc": {"": 0.5}, "x_average_precision": {"": 0.75}}


def test_depth_and_boxes(tmp_path: Path) -> None:
    depth = DepthErrorMetric(cell(tmp_path / "depth") / "eval")
    truth = torch.rand(1, 8, 8) + 0.1
    empty = {"name": "c", "group": "video 2", "pred": truth, "label": torch.zeros(1, 8, 8)}
    near = {"name": "a", "group": "video 1", "pred": truth + 0.1 * torch.rand(1, 8, 8), "label": truth}
    depth.update([near, empty])
    depth.write(tmp_path / "depth" / "eval")
    rows = values_of(tmp_path / "depth")
    assert {row["metric"] for row in rows} == {"rmse_mm", "mae_mm", "median_relative_error"}
    assert {(row["case"], row["group"]) for row in rows} == {("a", "video 1")}, "c has no known depth"
    boxes = BoxPrecisionMetric(cell(tmp_path / "boxes") / "eval")
    one = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1])}
    boxes.update((["a"], [{**one, "scores": torch.tensor([0.9])}], [one]))
    boxes.compute()
    boxes.write(tmp_path / "boxes" / "eval")
    judged(tmp_path / "boxes", [("a", "g", "boxes", 2, 2), ("b", "g", "boxes", 0, 2)])
    found = table(tmp_path / "boxes")
    assert found["best_iou"] == {"a": 1.0} and found["map"][""] == pytest.approx(1.0) and found["f1"][""] == 0.5


def test_what_was_not_run_to_its_end_is_no_value(tmp_path: Path) -> None:
    assert values_of(cell(tmp_path / "failed", "failed")) == []
    with pytest.raises(DataError, match=r"cell\.json is not there or damaged"):
        values_of(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"metrics\.csv is not there"):
        values_of(cell(tmp_path / "empty"))
    (tmp_path / "empty" / "eval" / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="of no evaluation that is known"):
        values_of(tmp_path / "empty")
    (tmp_path / "empty" / "eval" / "metrics.csv").write_text("case,class,dice\nx,liver,high\n")
    with pytest.raises(DataError, match="'high' is no dice"):
        values_of(tmp_path / "empty")
