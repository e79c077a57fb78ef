from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from torch import multiprocessing

from monai_ssl_transfer.engines.transfer.fine_tuning import BestModelSaver
from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.evaluation.classification import compute_classification_metrics
from monai_ssl_transfer.evaluation.classification_report import ClassificationMetric, FindingOptions
from monai_ssl_transfer.evaluation.operating_points import compute_finding_metrics
from monai_ssl_transfer.evaluation.photograph_predictions import PhotographPredictionWriter

NAMES = ("normal", "angiodysplasia")
LABELS = torch.tensor([0, 1, 0, 1, 1, 0, 0])
LOGITS = torch.randn(7, 2, generator=torch.Generator().manual_seed(3))


def engine_with(handler: Any, name: str = "auroc", seen: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)) -> Engine:
    """An evaluator's pass over photographs, as batches of at most three."""

    def step(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
        return {"pred": LOGITS[batch["rows"]], "label": LABELS[batch["rows"]]}

    engine = Engine(step)
    if isinstance(handler, ClassificationMetric):
        handler.attach(engine, name)
    else:
        handler.attach(engine)
    batches = [list(seen[start : start + 3]) for start in range(0, len(seen), 3)]
    engine.run(
        [
            {"rows": rows, "name": [f"p{i}" for i in rows], "image_path": [f"/data/set/p{i}.jpg" for i in rows]}
            for rows in batches
        ]
    )
    return engine


def test_photographs_are_known_by_their_names_and_count_once(tmp_path: Path):
    support = {"train": {"normal": 9, "angiodysplasia": 0}}
    metric = ClassificationMetric(NAMES, tmp_path, "auroc", FindingOptions("angiodysplasia"), support, "/data/set")
    engine = engine_with(metric, seen=(0, 1, 2, 3, 4, 5, 6, 0, 1))  # a distributed sampler pads with the first ones
    probabilities = LOGITS.softmax(1).numpy()
    expected = compute_classification_metrics(probabilities, LABELS.numpy(), NAMES)
    finding = compute_finding_metrics(probabilities[:, 1], LABELS.numpy() == 1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["n"] == 7
    assert summary["support"] == support
    assert summary["mcc"] == pytest.approx(expected.mcc)
    assert summary["finding"]["auroc"] == pytest.approx(finding.auroc)
    assert summary["finding"]["class"] == "angiodysplasia"
    assert [p["specificity_asked"] for p in summary["finding"]["sensitivity_at_specificity"]] == [0.9, 0.95]
    metrics = engine.state.metrics
    assert metrics["auroc"] == pytest.approx(finding.auroc)
    assert metrics["average_precision"] == pytest.approx(finding.average_precision)
    assert metrics["sensitivity_at_specificity_0.9"] == finding.points[0].sensitivity
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["file"] for row in rows] == [f"p{i}.jpg" for i in range(7)]
    assert [row["truth"] for row in rows] == [NAMES[i] for i in LABELS]
    for row, wanted in zip(rows, probabilities, strict=True):
        assert [float(row[name]) for name in NAMES] == pytest.approx(wanted.tolist(), abs=1e-6)
        assert row["predicted"] == NAMES[int(wanted.argmax())]


def test_files_elsewhere_keep_their_whole_path(tmp_path: Path):
    engine_with(ClassificationMetric(NAMES, tmp_path, root="/other"))
    assert next(csv.DictReader((tmp_path / "predictions.csv").open()))["file"] == "/data/set/p0.jpg"


def test_a_threshold_that_calls_nothing_positive_is_null_in_json(tmp_path: Path):
    metric = ClassificationMetric(NAMES, tmp_path, finding=FindingOptions("angiodysplasia", (1.0,)))
    metric.update((torch.tensor([[0.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1]), ["a", "b"], ["", ""]))
    metric.completed(Engine(lambda *_: None), "x")
    text = (tmp_path / "summary.json").read_text()
    point = json.loads(text)["finding"]["sensitivity_at_specificity"][0]
    assert "Infinity" not in text
    assert (point["threshold"], point["sensitivity"], point["specificity"]) == (None, 0.0, 1.0)


def test_what_the_metric_stands_for_is_chosen():
    assert engine_with(ClassificationMetric(NAMES, value="macro_f1"), "x").state.metrics["x"] == pytest.approx(
        compute_classification_metrics(LOGITS.softmax(1).numpy(), LABELS.numpy(), NAMES).macro_f1
    )
    with pytest.raises(DataError, match="average_precision"):  # which needs a finding
        engine_with(ClassificationMetric(NAMES, value="average_precision"))
    with pytest.raises(DataError, match="polyp"):
        ClassificationMetric(NAMES, finding=FindingOptions("polyp"))


def test_photographs_without_truth_are_written(tmp_path: Path):
    engine_with(PhotographPredictionWriter(tmp_path / "out" / "predictions.csv", NAMES))
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert [row["file"] for row in rows] == [f"p{i}" for i in range(7)]
    assert {row["truth"] for row in rows} == {""}
    assert [row["predicted"] for row in rows] == [NAMES[int(i)] for i in LOGITS.argmax(1)]


def test_a_name_that_is_no_text_is_written_as_it_is(tmp_path: Path):
    writer = PhotographPredictionWriter(tmp_path / "predictions.csv", NAMES)
    engine = Engine(lambda *_: {"pred": LOGITS[:1]})
    writer.attach(engine)
    engine.run([{"name": [os.fsdecode(b"b\xff.jpg")]}])
    assert b"b\xff.jpg,," in (tmp_path / "predictions.csv").read_bytes()


def test_an_undefined_metric_never_becomes_the_best(tmp_path: Path):
    saver = BestModelSaver(torch.nn.Linear(1, 1), tmp_path / "model.pt", "auroc")
    engine = Engine(lambda *_: None)
    saver.attach(engine)
    engine.state.metrics["auroc"] = math.nan
    with pytest.raises(TrainingError, match="validation_fraction"):
        engine.run([0])
    assert not (tmp_path / "model.pt").exists()


def judge_in_a_process(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    metric = ClassificationMetric(NAMES, folder, "auroc", FindingOptions("angiodysplasia"))
    seen = ((0, 2, 4, 6), (1, 3, 5, 0))[rank]
    value = engine_with(metric, seen=seen).state.metrics["auroc"]
    (Path(folder) / f"{rank}.txt").write_text(repr(value))
    dist.destroy_process_group()


def test_several_processes_judge_together(tmp_path: Path):
    multiprocessing.spawn(judge_in_a_process, (str(tmp_path),), nprocs=2)
    expected = compute_finding_metrics(LOGITS.softmax(1).numpy()[:, 1], LABELS.numpy() == 1).auroc
    values = [float((tmp_path / f"{rank}.txt").read_text()) for rank in range(2)]
    assert values == pytest.approx([expected, expected])
    assert len(list(csv.DictReader((tmp_path / "predictions.csv").open()))) == 7
    assert json.loads((tmp_path / "summary.json").read_text())["n"] == 7
    assert np.isfinite(values).all()
