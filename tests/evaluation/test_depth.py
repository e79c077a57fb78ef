"""Depth errors against numpy's own least squares, in mm, with their degenerate cases and files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.depth import compute_depth_metrics
from monai_ssl_transfer.evaluation.depth_report import DepthErrorMetric


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative depth and the truth in mm, with holes, (15, 20)."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(5, 100, (15, 20))
    prediction = truth / 90 + rng.normal(0, 0.1, truth.shape)
    truth[rng.random(truth.shape) < 0.3] = 0
    return prediction, truth


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.booleans(), st.floats(-50, 50))
def test_errors_are_those_after_least_squares(seed: int, size: float, falls: bool, shift: float):
    prediction, truth = draw(seed)
    scale = -size if falls else size
    found = compute_depth_metrics(scale * prediction + shift, truth)
    known = truth > 0
    fit = np.polynomial.Polynomial.fit(prediction[known], truth[known], 1)
    error = np.abs(fit(prediction[known]) - truth[known])
    assert found.rmse_mm == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)
    assert found.mae_mm == pytest.approx(error.mean(), rel=1e-6)
    assert found.median_relative_error == pytest.approx(np.median(error / truth[known]), rel=1e-6)
    assert (found.scale < 0) == falls
    assert found.valid_pixels == known.sum()


def test_a_constant_prediction_is_judged_as_the_mean():
    truth = np.array([[10.0, 20.0], [0.0, 30.0]])
    found = compute_depth_metrics(np.full((2, 2), 3.3), truth)
    assert found.rmse_mm == pytest.approx(np.sqrt(200 / 3))
    assert found.mae_mm == pytest.approx(20 / 3)
    assert found.median_relative_error == pytest.approx(1 / 3)
    assert found.scale == 0


def test_an_image_without_depth_has_no_errors():
    found = compute_depth_metrics(np.ones((2, 2)), np.zeros((2, 2)))
    assert found.valid_pixels == 0
    assert np.isnan([found.rmse_mm, found.mae_mm, found.median_relative_error]).all()


def test_wrong_sizes_and_values_are_refused():
    with pytest.raises(DataError, match="size of the photograph"):
        compute_depth_metrics(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(DataError, match="not finite"):
        compute_depth_metrics(np.array([[1.0, np.inf]]), np.ones((1, 2)))


def item(seed: int, known: bool = True) -> dict:
    prediction, truth = draw(seed)
    label = torch.tensor(truth / 100)[None] if known else torch.zeros(1, 15, 20)
    return {"pred": torch.tensor(prediction)[None], "label": label}


def batch(seed: int, video: str) -> list[dict]:
    return [{"name": f"{video}-{seed}", "group": video}]


def test_metric_attached_to_an_engine_writes_its_files(tmp_path: Path):
    names = [batch(0, "cecum"), batch(1, "cecum"), batch(2, "trans")]
    outputs = iter([[item(0)], [item(1)], [item(2, known=False)]])
    engine, metric = Engine(lambda *_: next(outputs)), DepthErrorMetric(output_dir=tmp_path)
    metric.attach(engine, "negative_rmse_mm")
    engine.run(names)
    expected = [compute_depth_metrics(*draw(seed)) for seed in (0, 1)]
    rmse = np.mean([one.rmse_mm for one in expected])
    assert engine.state.metrics["negative_rmse_mm"] == pytest.approx(-rmse)
    assert engine.state.metrics["rmse_mm"] == pytest.approx(rmse)
    assert engine.state.metrics["mae_mm"] == pytest.approx(np.mean([one.mae_mm for one in expected]))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(row["name"], row["video"]) for row in rows] == [
        ("cecum-0", "cecum"),
        ("cecum-1", "cecum"),
        ("trans-2", "trans"),
    ]
    assert float(rows[1]["rmse_mm"]) == pytest.approx(expected[1].rmse_mm, rel=1e-5)
    assert (rows[2]["rmse_mm"], rows[2]["valid_pixels"]) == ("", "0")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["photographs"], summary["without_known_depth"], summary["near_taken_for_far"]) == (3, 1, 0)
    assert summary["errors"]["rmse_mm"]["n"] == 2
    assert list(summary["videos"]) == ["cecum"]


def test_photographs_of_all_processes_count_once(monkeypatch: pytest.MonkeyPatch):
    parts = []
    for seed in (0, 0, 1):
        metric = DepthErrorMetric()
        metric.update([item(seed) | {"name": str(seed)}])
        parts.append(metric.rows)
    monkeypatch.setattr(idist, "get_world_size", lambda: 3)
    monkeypatch.setattr(idist, "all_gather", lambda _: parts)
    expected = np.mean([compute_depth_metrics(*draw(seed)).rmse_mm for seed in (0, 1)])
    assert DepthErrorMetric().compute() == pytest.approx(-expected)


def test_no_depth_in_any_photograph_is_an_error():
    metric = DepthErrorMetric()
    metric.update([item(0, known=False) | {"name": "a"}])
    with pytest.raises(DataError, match="none of 1 photographs"):
        metric.compute()
