from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.metrics import ROCAUCMetric

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.classification import compute_auroc, compute_classification_metrics
from monai_ssl_transfer.evaluation.classification_report import ClassificationMetric, ProbabilityWriter

NAMES = ("head", "thorax", "abdomen")


def test_known_values():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 1, 0])
    found = compute_classification_metrics(np.eye(3)[predicted], labels, NAMES)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.macro_f1 == pytest.approx((4 / 6 + 4 / 5 + 0) / 3)
    assert [c.support for c in found.classes] == [3, 2, 1]
    assert [c.predicted for c in found.classes] == [3, 3, 0]
    assert found.classes[1].precision == pytest.approx(2 / 3)
    assert np.isnan(found.classes[2].precision)
    assert found.absent == ()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_auroc_is_the_share_of_ordered_pairs(seed: int, ties: bool):
    rng = np.random.default_rng(seed)
    positive = np.arange(20) < rng.integers(1, 19)
    score = rng.integers(0, 5, 20).astype(float) if ties else rng.random(20)
    pairs = score[positive][:, None] - score[~positive][None]
    assert compute_auroc(score, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_macro_auroc_equals_monai():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    probabilities = rng.dirichlet(np.ones(3), 60) + 0.3 * np.eye(3)[labels]
    metric = ROCAUCMetric()
    metric(torch.tensor(probabilities), torch.tensor(np.eye(3)[labels]))
    assert compute_classification_metrics(probabilities, labels, NAMES).auroc == pytest.approx(metric.aggregate())


def test_absent_classes_are_named_and_left_out():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    found = compute_classification_metrics(probabilities, labels, NAMES)
    assert found.absent == ("abdomen",)
    assert found.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    assert found.auroc == pytest.approx((1.0 + 0.75) / 2)
    assert found.macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)  # abdomen is predicted once, wrongly
    assert np.isnan(found.classes[2].auroc)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="labels"):
        compute_classification_metrics(np.zeros((0, 3)), np.zeros(0, int), NAMES)
    with pytest.raises(DataError, match="only 3 classes"):
        compute_classification_metrics(np.ones((1, 3)), np.array([3]), NAMES)
    with pytest.raises(DataError, match="not finite"):
        compute_classification_metrics(np.full((1, 3), np.nan), np.array([0]), NAMES)


def run(metric: ClassificationMetric | ProbabilityWriter, logits: torch.Tensor, labels: torch.Tensor) -> Engine:
    def step(engine: Engine, batch: dict) -> dict:
        return {"pred": logits[batch["index"]], "label": labels[batch["index"]]}

    engine = Engine(step)
    metric.attach(engine, "balanced") if isinstance(metric, ClassificationMetric) else metric.attach(engine)
    parts = torch.arange(len(labels)).split(4)
    engine.run([{"index": p, "series": [f"s{i}" for i in p.tolist()], "position": p * 2.5} for p in parts])
    return engine


def test_metric_in_an_engine_writes_its_files(tmp_path: Path):
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    engine = run(ClassificationMetric(NAMES, tmp_path), logits, labels)
    expected = compute_classification_metrics(logits.softmax(1).numpy(), labels.numpy(), NAMES)
    assert engine.state.metrics["balanced"] == pytest.approx(expected.balanced_accuracy)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["auroc"] == pytest.approx(expected.auroc)
    assert summary["absent_classes"] == ["abdomen"]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [r["name"] for r in rows] == list(NAMES)
    assert rows[2]["auroc"] == ""


def test_probabilities_are_written_per_slice(tmp_path: Path):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    run(ProbabilityWriter(tmp_path / "out" / "p.csv", NAMES), logits, torch.zeros(6, dtype=torch.long))
    rows = list(csv.DictReader((tmp_path / "out" / "p.csv").open()))
    assert [r["series"] for r in rows] == [f"s{i}" for i in range(6)]
    assert rows[2]["position_mm"] == "5.000"
    for row, expected in zip(rows, logits.softmax(1).tolist(), strict=True):
        assert [float(row[n]) for n in NAMES] == pytest.approx(expected, abs=1e-6)
        assert row["predicted"] == NAMES[int(np.argmax(expected))]
