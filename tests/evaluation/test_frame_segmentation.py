from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.metrics import compute_hausdorff_distance
from skimage.measure import label as components
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
)

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.frame_segmentation import compute_frame_metrics, count_lesions
from monai_ssl_transfer.evaluation.frame_segmentation_report import FrameSegmentationMetric, FrameSegmentationReport


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (np.hypot(rows - centre[0], columns - centre[1]) <= radius).astype(np.uint8)


def polyp_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (48, 63)
    return tuple(disc(shape, tuple(rng.uniform(18, 30, 2)), rng.uniform(5, 14)) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_torchmetrics_and_monai(seed: int):
    prediction, truth = polyp_pair(seed)
    found = compute_frame_metrics(prediction, truth)["polyp"]
    pair = torch.from_numpy(prediction.ravel()), torch.from_numpy(truth.ravel())
    assert found.dice == pytest.approx(float(binary_f1_score(*pair)), abs=1e-6)
    assert found.iou == pytest.approx(float(binary_jaccard_index(*pair)), abs=1e-6)
    assert found.precision == pytest.approx(float(binary_precision(*pair)), abs=1e-6)
    assert found.recall == pytest.approx(float(binary_recall(*pair)), abs=1e-6)
    volumes = [torch.from_numpy(one)[None, None].float() for one in (prediction, truth)]
    hd95 = compute_hausdorff_distance(*volumes, include_background=True, percentile=95)
    assert found.hd95 == pytest.approx(float(hd95), abs=1e-4)
    assert (found.predicted_pixels, found.true_pixels) == (prediction.sum(), truth.sum())


def test_empty_masks_follow_the_table():
    empty, full = np.zeros((30, 40), np.uint8), disc((30, 40), (10, 10), 5)
    both = compute_frame_metrics(empty, empty)["polyp"]
    assert (both.dice, both.iou, both.precision, both.recall, both.hd95) == (1, 1, 1, 1, 0)
    for pair in ((empty, full), (full, empty)):
        one = compute_frame_metrics(*pair)["polyp"]
        assert (one.dice, one.iou, one.precision, one.recall) == (0, 0, 0, 0)
        assert one.hd95 == 50.0
    assert math.isnan(compute_frame_metrics(full, full, surfaces=False)["polyp"].hd95)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 100_000), st.floats(0, 0.7), st.floats(0, 0.7))
def test_every_metric_stays_in_its_range(seed: int, share: float, other: float):
    rng = np.random.default_rng(seed)
    a, b = (rng.random((9, 12)) < share).astype(np.uint8), (rng.random((9, 12)) < other).astype(np.uint8)
    found, reverse = compute_frame_metrics(a, b)["polyp"], compute_frame_metrics(b, a)["polyp"]
    assert all(0 <= value <= 1 for value in (found.dice, found.iou, found.precision, found.recall))
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    assert 0 <= found.hd95 <= 15.0
    assert (found.precision, found.recall, found.hd95) == (reverse.recall, reverse.precision, reverse.hd95)
    assert 0 <= found.lesions_found <= found.lesions


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 5))
def test_lesions_are_counted_as_by_skimage(seed: int, minimum: int):
    rng = np.random.default_rng(seed)
    prediction, truth = rng.random((2, 14, 11)) < 0.25

    def lesions(mask: np.ndarray) -> list[np.ndarray]:
        numbers = components(mask, connectivity=2)
        sets = [numbers == number for number in range(1, numbers.max() + 1)]
        return [one for one in sets if one.sum() >= minimum]

    expected = (
        len(lesions(truth)),
        sum(bool((one & prediction).any()) for one in lesions(truth)),
        sum(not (one & truth).any() for one in lesions(prediction)),
    )
    assert count_lesions(prediction, truth, minimum) == expected


def test_lesions_by_hand():
    truth = np.zeros((60, 80), np.uint8)
    truth[5:15, 5:15] = truth[15:20, 15:20] = 1  # one lesion: the squares touch at a corner
    truth[40:50, 60:70] = 1  # a second one
    truth[30, 30] = 1  # a speck of JPEG compression
    prediction = np.zeros_like(truth)
    prediction[14:30, 14:20] = 1  # overlaps the first
    prediction[50:58, 5:15] = 1  # false
    prediction[0, 79] = 1  # too small for a lesion
    found = compute_frame_metrics(prediction, truth)["polyp"]
    assert (found.lesions, found.lesions_found, found.false_lesions) == (2, 1, 1)
    assert compute_frame_metrics(prediction, truth, minimum_area=1)["polyp"].lesions == 3


def test_several_classes_and_wrong_data():
    truth = np.array([[0, 1, 1], [0, 2, 2]])
    found = compute_frame_metrics(np.array([[0, 1, 2], [0, 2, 2]]), truth, ("background", "polyp", "tool"))
    assert found["polyp"].recall == 0.5
    assert found["tool"].precision == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="label 2 has no class"):
        compute_frame_metrics(truth, truth)
    with pytest.raises(DataError, match="size of its photograph"):
        compute_frame_metrics(np.zeros((3, 4)), np.zeros((4, 3)))
    with pytest.raises(DataError, match="frame7"):
        FrameSegmentationReport().add("frame7", np.zeros((3, 4)), np.zeros((4, 3)))


def mixed_report() -> FrameSegmentationReport:
    """Two photographs with a lesion (one found whole, one missed) and two normal ones (one with an invented lesion)."""
    empty, lesion = np.zeros((30, 40), np.uint8), disc((30, 40), (15, 20), 6)
    report = FrameSegmentationReport(("background", "angiodysplasia"))
    report.add("found", lesion, lesion)
    report.add("missed", empty, lesion)
    report.add("silent", empty, empty)
    report.add("invented", lesion, empty)
    return report


def test_summary_tells_positive_and_normal_photographs_apart(tmp_path: Path):
    report = mixed_report()
    report.write(tmp_path / "eval")
    rows = list(csv.DictReader((tmp_path / "eval" / "metrics.csv").open()))
    assert [(row["case"], row["class"]) for row in rows] == [
        (case, "angiodysplasia") for case in ("found", "missed", "silent", "invented")
    ]
    assert [float(row["dice"]) for row in rows] == [1, 0, 1, 0]
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    found = summary["classes"]["angiodysplasia"]
    assert (summary["cases"], found["positive_images"], found["normal_images"]) == (4, 2, 2)
    assert found["dice"]["mean"] == 0.5
    assert found["positives_only"]["dice"] == {
        "mean": 0.5, "sd": pytest.approx(math.sqrt(0.5)), "median": 0.5, "min": 0.0, "max": 1.0, "n": 2,
    }  # fmt: skip
    assert found["specificity_on_normal_images"] == 0.5
    assert (found["lesions"], found["lesions_found"], found["lesion_recall"]) == (2, 1, 0.5)
    assert found["false_lesions_per_image"] == 0.25


def test_metric_in_an_engine(tmp_path: Path):
    pairs = [polyp_pair(seed) for seed in range(3)]
    empty = np.zeros_like(pairs[0][0])
    pairs.append((empty, empty))

    def step(engine: Engine, case: int) -> list[dict]:
        prediction, truth = (torch.tensor(one)[None] for one in pairs[case])
        engine.state.batch = [{"name": f"case {case}"}]
        logits = torch.cat([1 - prediction, prediction]).float()
        return [{"pred": MetaTensor(logits), "label": truth}]

    engine = Engine(step)
    for selection in ("all", "positives"):
        FrameSegmentationMetric(selection=selection, output_dir=tmp_path / selection).attach(engine, selection)
    for _ in range(2):  # a second epoch must not add to the first
        state = engine.run(range(4))
    dice = [compute_frame_metrics(*pair)["polyp"].dice for pair in pairs]
    assert state.metrics["all"] == pytest.approx(np.mean(dice))
    assert state.metrics["positives"] == pytest.approx(np.mean(dice[:3]))
    assert state.metrics["polyp_specificity"] == 1.0
    assert "polyp_hd95" not in state.metrics
    assert len((tmp_path / "all" / "metrics.csv").read_text().splitlines()) == 5


def test_a_mean_of_nothing_is_refused():
    report = FrameSegmentationReport()
    with pytest.raises(DataError, match="there are no photographs"):
        report.mean("dice")
    report.add("normal", np.zeros((4, 4)), np.zeros((4, 4)))
    assert report.mean("dice") == {"polyp": 1.0}
    with pytest.raises(DataError, match="no photograph shows polyp"):
        report.mean("dice", "positives")
    with pytest.raises(DataError, match="unknown selection"):
        FrameSegmentationMetric(report, selection="most")
