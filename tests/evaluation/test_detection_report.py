"""Files of a detection run: per photograph, together, and the boxes of an inference."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine

from monai_ssl_transfer.evaluation.detection_report import BoxPrecisionMetric, BoxWriter


def boxes(*corners: list[float]) -> torch.Tensor:
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


def prediction(found: torch.Tensor, scores: list[float]) -> dict[str, torch.Tensor]:
    return {"boxes": found, "scores": torch.tensor(scores), "labels": torch.ones(len(found), dtype=torch.int64)}


def target(truth: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"boxes": truth, "labels": torch.ones(len(truth), dtype=torch.int64)}


BATCHES = [
    {
        "name": ["a", "b"],
        "pred": [prediction(boxes([0, 0, 10, 10], [20, 20, 30, 30]), [0.9, 0.6]), prediction(boxes(), [])],
        "label": [target(boxes([0, 0, 10, 10])), target(boxes())],
        "image": [torch.zeros(3, 40, 50), torch.zeros(3, 30, 20)],
    },
    {
        "name": ["c/d.jpg"],
        "pred": [prediction(boxes([0, 0, 10, 10]), [0.3])],
        "label": [target(boxes([0, 0, 10, 10]))],
        "image": [torch.zeros(3, 40, 50)],
    },
]


def engine() -> Engine:
    return Engine(lambda _, batch: {name: batch[name] for name in ("pred", "label", "image")})


def test_metric_attached_to_an_engine_writes_its_files(tmp_path: Path):
    evaluator, metric = engine(), BoxPrecisionMetric(output_dir=tmp_path)
    metric.attach(evaluator, "map")
    evaluator.run(BATCHES)
    assert evaluator.state.metrics["map"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert {"map_50", "map_75", "recall"} <= evaluator.state.metrics.keys()
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "metrics.csv").open())}
    assert (rows["a"]["hits"], rows["a"]["missed"], rows["a"]["false"]) == ("1", "0", "1")
    assert (rows["b"]["boxes"], rows["b"]["best_iou"]) == ("0", "")
    assert (rows["c/d.jpg"]["missed"], rows["c/d.jpg"]["highest_score"]) == ("1", "0.3")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["photographs"], summary["photographs_without_box"], summary["boxes"]) == (3, 1, 2)
    assert summary["at_threshold"]["recall"] == 0.5
    assert summary["at_threshold"]["photographs_without_box_left_alone"] == 1


def test_photographs_of_all_processes_count_once(monkeypatch: pytest.MonkeyPatch):
    parts = []
    for batch in (BATCHES[0], BATCHES[0], BATCHES[1]):
        metric = BoxPrecisionMetric()
        metric.update((batch["name"], batch["pred"], batch["label"]))
        parts.append(metric.images)
    monkeypatch.setattr(idist, "get_world_size", lambda: 3)
    monkeypatch.setattr(idist, "all_gather", lambda _: parts)
    metric = BoxPrecisionMetric()
    assert metric.compute() == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert list(metric.images) == ["a", "b", "c/d.jpg"]


def test_a_set_without_a_polyp_has_figures_and_a_summary(tmp_path: Path):
    metric = BoxPrecisionMetric(output_dir=tmp_path)
    metric.update((["b"], [prediction(boxes(), [])], [target(boxes())]))
    assert metric.compute() == 1
    metric.write(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["recall"] is None
    assert summary["at_threshold"]["precision"] is None


def test_boxes_of_an_inference(tmp_path: Path):
    run, writer = engine(), BoxWriter(tmp_path / "out", ["polyp"], score_threshold=0.5)
    writer.attach(run)
    run.run(BATCHES)
    content = json.loads((tmp_path / "out" / "boxes.json").read_text())
    assert "EXIF" in content["coordinates"]
    assert list(content["photographs"]) == ["a", "b", "c/d.jpg"]
    first = content["photographs"]["a"]
    assert (first["width"], first["height"]) == (50, 40)
    assert first["boxes"] == [[0, 0, 10, 10], [20, 20, 30, 30]]
    assert first["scores"] == [0.9, 0.6]
    assert first["labels"] == ["polyp", "polyp"]
    assert content["photographs"]["c/d.jpg"]["boxes"] == []
    rows = list(csv.DictReader((tmp_path / "out" / "boxes.csv").open()))
    assert [(row["photograph"], row["label"], float(row["x1"])) for row in rows] == [
        ("a", "polyp", 10),
        ("a", "polyp", 30),
    ]
