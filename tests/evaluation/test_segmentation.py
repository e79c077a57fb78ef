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
from monai.data import MetaTensor
from monai.metrics import DiceHelper, compute_hausdorff_distance, compute_surface_dice
from scipy.spatial.distance import cdist

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.robustness_cases import judged_cases
from monai_ssl_transfer.evaluation.segmentation import compute_case_metrics, compute_surface_metrics
from monai_ssl_transfer.evaluation.segmentation_report import CaseSegmentationMetric, SegmentationReport, voxel_spacing


def ellipsoid(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    grid = np.indices(shape, dtype=float)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1


def liver_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    volumes = []
    for _ in range(2):
        labels = np.zeros((24, 30, 12), dtype=np.uint8)
        labels[ellipsoid(labels.shape, tuple(rng.uniform(9, 13, 3) - [0, 0, 5]), (9, 11, 4))] = 1
        labels[ellipsoid(labels.shape, tuple(rng.uniform(9, 13, 3) - [0, 0, 5]), (4, 3, 2))] = 2
        volumes.append(labels)
    return volumes[0], volumes[1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0)])
def test_equal_to_monai(seed: int, spacing: tuple[float, ...]):
    prediction, truth = liver_case(seed)
    found = compute_case_metrics(prediction, truth, spacing, tolerance=2.0)
    for name, values in {"liver": (1, 2), "tumour": (2,)}.items():
        pair = [torch.tensor(np.isin(v, values))[None, None].float() for v in (prediction, truth)]
        dice, _ = DiceHelper(include_background=True, sigmoid=False, softmax=False)(*pair)
        hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
        nsd = compute_surface_dice(*pair, class_thresholds=[2.0], include_background=True, spacing=spacing)
        assert found[name].dice == pytest.approx(float(dice), abs=1e-6)
        assert found[name].hd95 == pytest.approx(float(hd95), abs=1e-4)
        assert found[name].nsd == pytest.approx(float(nsd), abs=1e-6)


def brute_force(a: np.ndarray, b: np.ndarray, spacing: np.ndarray, tolerance: float) -> tuple[float, float]:
    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        points = []
        for point in np.argwhere(mask):
            around = [padded[tuple(point + 1 + step)] for axis in np.eye(3, dtype=int) for step in (axis, -axis)]
            if not all(around):
                points.append(point * spacing)
        return np.array(points)

    distances = cdist(surface(a), surface(b))
    to_b, to_a = distances.min(axis=1), distances.min(axis=0)
    within = (to_b <= tolerance).sum() + (to_a <= tolerance).sum()
    return max(np.percentile(to_b, 95), np.percentile(to_a, 95)), within / (len(to_a) + len(to_b))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 5.0), st.floats(0.3, 5.0))
def test_surfaces_equal_brute_force_and_are_symmetric(seed: int, row: float, slice_: float):
    rng = np.random.default_rng(seed)
    a, b = rng.random((5, 6, 4)) < 0.4, rng.random((5, 6, 4)) < 0.4
    a[0, 0, 0] = b[4, 5, 3] = True
    spacing = np.array([row, 1.0, slice_])
    found = compute_surface_metrics(a, b, spacing, tolerance=1.0)
    assert found == pytest.approx(brute_force(a, b, spacing, 1.0), abs=1e-9)
    assert compute_surface_metrics(b, a, spacing, tolerance=1.0) == pytest.approx(found)


def test_known_values():
    truth, prediction = np.zeros((10, 10, 10), np.uint8), np.zeros((10, 10, 10), np.uint8)
    truth[2:6, 2:6, 2:6] = 1  # 64 voxels
    prediction[2:6, 2:6, 3:7] = 1  # shifted by one slice of 4 mm
    liver = compute_case_metrics(prediction, truth, (1, 1, 4), tolerance=4.0)["liver"]
    assert liver.dice == pytest.approx(2 * 48 / 128)
    assert liver.iou == pytest.approx(48 / 80)
    assert liver.hd95 == pytest.approx(4.0)
    assert liver.nsd == 1.0
    assert liver.true_ml == pytest.approx(64 * 4 / 1000)
    assert compute_case_metrics(prediction, truth, (1, 1, 4), tolerance=0.5)["liver"].nsd < 1


def test_empty_cases_follow_the_table():
    empty, full = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
    full[1, 1, 1] = 2
    diagonal = float(np.linalg.norm([4 * 1, 5 * 2, 6 * 3]))
    both = compute_case_metrics(empty, empty, (1, 2, 3))["tumour"]
    assert (both.dice, both.iou, both.nsd, both.hd95) == (1, 1, 1, 0)
    for pair in ((empty, full), (full, empty)):
        one = compute_case_metrics(*pair, (1, 2, 3))["tumour"]
        assert (one.dice, one.iou, one.nsd) == (0, 0, 0)
        assert one.hd95 == pytest.approx(diagonal)


def test_liver_includes_tumours_unless_asked_otherwise():
    truth = np.zeros((6, 6, 6), np.uint8)
    truth[1:5, 1:5, 1:5] = 1
    truth[2:4, 2:4, 2:4] = 2
    prediction = np.minimum(truth, 1)
    assert compute_case_metrics(prediction, truth, (1, 1, 1))["liver"].dice == 1
    alone = compute_case_metrics(prediction, truth, (1, 1, 1), classes={"parenchyma": (1,)})["parenchyma"]
    assert alone.dice == pytest.approx(2 * 56 / (64 + 56))


def test_other_shape_is_refused():
    with pytest.raises(DataError, match="grid of its image"):
        compute_case_metrics(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), (1, 1, 1))


def test_report_writes_a_row_per_case_and_class_and_a_summary(tmp_path: Path):
    report = SegmentationReport()
    pairs = [liver_case(seed) for seed in range(3)]
    for number, (prediction, truth) in enumerate(pairs):
        report.add(str(number), prediction, truth, (1, 1, 2))
    report.write(tmp_path / "eval")
    rows = list(csv.DictReader((tmp_path / "eval" / "metrics.csv").open()))
    assert [(r["case"], r["class"]) for r in rows] == [(c, k) for c in "012" for k in ("liver", "tumour")]
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    dice = [2 * ((p > 0) & (t > 0)).sum() / ((p > 0).sum() + (t > 0).sum()) for p, t in pairs]
    liver = summary["classes"]["liver"]["dice"]
    assert liver["mean"] == pytest.approx(np.mean(dice))
    assert liver["sd"] == pytest.approx(np.std(dice, ddof=1))
    assert liver["median"] == pytest.approx(np.median(dice))
    assert liver["n"] == summary["cases"] == 3


def test_metric_in_an_engine(tmp_path: Path):
    affine = torch.tensor(np.array([[0, -2.0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]]))
    pairs = [liver_case(seed) for seed in range(2)]

    def step(engine: Engine, case: int) -> list[dict]:
        prediction, truth = (torch.tensor(v)[None] for v in pairs[case])
        engine.state.batch = [{"case": f"case {case}"}]
        return [{"image": MetaTensor(truth.float(), affine=affine), "pred": prediction, "label": truth}]

    engine = Engine(step)
    metric = CaseSegmentationMetric(SegmentationReport(), output_dir=tmp_path)
    metric.attach(engine, "mean_dice")
    for _ in range(2):  # a second epoch must not add to the first
        state = engine.run([0, 1])
    expected = [compute_case_metrics(p, t, (1, 2, 3)) for p, t in pairs]
    liver = np.mean([e["liver"].dice for e in expected])
    tumour = np.mean([e["tumour"].dice for e in expected])
    assert state.metrics["mean_dice"] == pytest.approx((liver + tumour) / 2)
    assert state.metrics["liver_hd95"] == pytest.approx(np.mean([e["liver"].hd95 for e in expected]))
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 5


def test_distances_need_an_affine():
    with pytest.raises(DataError, match="no affine"):
        voxel_spacing(torch.zeros(1, 2, 2, 2))


class Parsed(dict):
    """What is asked of a configuration that has run."""

    get_parsed_content = dict.__getitem__


def test_visits_of_a_patient_are_drawn_together():
    metric = CaseSegmentationMetric(SegmentationReport({"tumour": [1]}, surfaces=False))
    mask = np.ones((2, 2, 2), dtype=np.uint8)
    for case in ("B-1-000", "B-1-001", "B-2-000"):
        metric.report.add(case, mask, mask, (1, 1, 1))
    visits = [{"case": f"B-1-00{n}", "patient": "B-1"} for n in range(2)]
    cases = {"train": [], "validation": [*visits, {"case": "B-2-000"}]}
    parser = Parsed({"validate#key_metric": {"mean_dice": metric}, "cases": cases})
    assert [row.group for row in judged_cases(parser)[2]] == ["B-1", "B-1", "B-2-000"]
