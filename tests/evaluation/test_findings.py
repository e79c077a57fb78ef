"""Several findings per image and volumes of slices: against scikit-learn, and against the pairs counted one by one."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.findings import compute_findings, compute_placements
from monai_ssl_transfer.evaluation.findings_report import FindingsMetric
from monai_ssl_transfer.evaluation.image_metrics import VolumeClassificationMetric, image_metrics
from monai_ssl_transfer.evaluation.robustness_cases import judged_cases

NAMES = ("Effusion", "Mass", "Hernia", "Shown")


@pytest.fixture
def judged() -> tuple[np.ndarray, np.ndarray]:
    """40 images with ties; nobody has a hernia, all have the last."""
    rng = np.random.default_rng(0)
    truth = (rng.random((40, 4)) < 0.3).astype(np.float32)
    truth[:, 2], truth[:, 3] = 0, 1
    return np.round(0.3 * truth + 0.7 * rng.random((40, 4)), 1), truth


def test_macro_means_are_of_findings_that_can_be_judged(judged: tuple[np.ndarray, np.ndarray]):
    scores, truth = judged
    found = compute_findings(scores, truth, NAMES)
    areas = [roc_auc_score(truth[:, one], scores[:, one]) for one in (0, 1)]
    precisions = [average_precision_score(truth[:, one], scores[:, one]) for one in (0, 1)]
    assert [row.auroc for row in found.findings[:2]] == pytest.approx(areas)
    assert [row.average_precision for row in found.findings[:2]] == pytest.approx(precisions)
    assert (found.auroc, found.average_precision) == pytest.approx((np.mean(areas), np.mean(precisions)))
    assert (found.absent, found.always) == (("Hernia",), ("Shown",))
    assert np.isnan([found.findings[2].auroc, found.findings[3].average_precision]).all()
    placed = compute_placements(scores[:, 0], truth[:, 0] > 0)
    assert placed.mean() == pytest.approx(areas[0])
    assert np.isnan(compute_findings(scores[:, 2:], truth[:, 2:], NAMES[2:]).auroc)
    for bad in (truth[:30], truth + 1):
        with pytest.raises(DataError):
            compute_findings(scores, bad, NAMES)
    with pytest.raises(DataError, match="not finite"):
        compute_findings(scores * np.nan, truth, NAMES)


@given(rows=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_placements_of_positives_average_to_the_area(rows: list[tuple[int, bool]]):
    scores, truth = np.array([one[0] for one in rows], dtype=float), np.array([one[1] for one in rows])
    placed = compute_placements(scores, truth)
    if truth.all() or not truth.any():
        assert len(placed) == 0
    else:
        assert placed.mean() == pytest.approx(roc_auc_score(truth, scores))


def batches(metric: FindingsMetric | VolumeClassificationMetric, rows: list[dict[str, object]]) -> Engine:
    """An engine that judged the rows in batches of 7, the first batch twice."""
    chunks = [rows[start : start + 7] for start in range(0, len(rows), 7)]
    engine = Engine(lambda engine, batch: None)
    metric.reset()
    for chunk in [chunks[0], *chunks]:
        engine.state.batch = {key: [one[key] for one in chunk] for key in ("name", "volume", "image_path")}
        logits, labels = (torch.tensor(np.stack([one[key] for one in chunk])) for key in ("pred", "label"))
        engine.state.output = {"pred": logits, "label": labels}
        metric.iteration_completed(engine)
    engine.state.metrics = {}
    metric.completed(engine, "score")
    return engine


def test_files_and_cases_of_several_findings(
    judged: tuple[np.ndarray, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    scores, truth = judged
    scores = scores.clip(0.05, 0.95)
    rows = [
        {"name": f"{n:02d}", "volume": "", "image_path": f"/set/{n:02d}.png", "pred": np.log(s / (1 - s)), "label": t}
        for n, (s, t) in enumerate(zip(scores, truth, strict=True))
    ]  # fmt: skip
    metric = image_metrics(NAMES, True, tmp_path, support={"evaluated": {"Mass": 3}}, root="/set")["auroc"]
    assert isinstance(metric, FindingsMetric)
    with caplog.at_level(logging.WARNING):
        engine = batches(metric, rows)
    assert "no image shows Hernia" in caplog.text and "every image shows Shown" in caplog.text
    expected = compute_findings(scores, truth, NAMES)
    assert engine.state.metrics["auroc"] == pytest.approx(expected.auroc, abs=1e-6)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["average_precision"] == pytest.approx(expected.average_precision, abs=1e-6)
    assert (summary["n"], summary["absent_classes"], summary["support"]) == (40, ["Hernia"], {"evaluated": {"Mass": 3}})
    table = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["auroc"] == "" for row in table] == [False, False, True, True]
    assert sum(int(row["positives"]) for row in table) == truth.sum()
    first = next(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert (first["file"], first["truth"]) == ("00.png", "|".join(n for n, t in zip(NAMES, truth[0], strict=True) if t))
    assert first["predicted"] == "|".join(n for n, s in zip(NAMES, scores[0], strict=True) if s >= 0.5)
    content = {"validate#key_metric": {"auroc": metric}, "cases": {"evaluate": [{"name": "00", "group": "patient"}]}}
    name, higher, cases = judged_cases(SimpleNamespace(get_parsed_content=content.__getitem__))
    assert (name, higher) == ("macro AUROC", True)
    means = [np.mean([one.gained for one in cases if one.stratum == finding]) for finding in NAMES[:2]]
    assert np.mean(means) == pytest.approx(expected.auroc, abs=1e-6)
    assert {one.stratum for one in cases} == set(NAMES[:2])
    with pytest.raises(DataError, match="choose one of auroc"):
        FindingsMetric(NAMES, value="accuracy")


def test_slices_of_a_volume_are_averaged(tmp_path: Path):
    rng = np.random.default_rng(1)
    rows = [
        {
            "name": f"{volume}/{number}",
            "volume": str(volume),
            "image_path": f"/set/{volume}/{number}",
            "pred": rng.normal(size=2),
            "label": volume % 2,
        }
        for volume in range(6)
        for number in range(3)
    ]
    rows.append({"name": "alone", "volume": "alone", "image_path": "/set/alone.png", "pred": np.zeros(2), "label": 1})
    metric = image_metrics(("no", "yes"), False, tmp_path, root="/set")["macro_f1"]
    assert isinstance(metric, VolumeClassificationMetric)
    batches(metric, rows)
    table = {row["file"]: row for row in csv.DictReader((tmp_path / "predictions.csv").open())}
    assert set(table) == {*map(str, range(6)), "alone.png"}
    for volume in range(6):
        logits = np.stack([row["pred"] for row in rows if row["volume"] == str(volume)])
        share = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).mean(axis=0)
        assert float(table[str(volume)]["yes"]) == pytest.approx(share[1], abs=1e-5)
        assert table[str(volume)]["truth"] == ("no", "yes")[volume % 2]
    assert json.loads((tmp_path / "summary.json").read_text())["n"] == 7
    rows[0]["label"] = 1
    with pytest.raises(DataError, match="the slices of 0 have different classes"):
        batches(metric, rows)
