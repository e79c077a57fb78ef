from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.classification import compute_classification_metrics, compute_mcc
from monai_ssl_transfer.evaluation.operating_points import (
    compute_average_precision,
    compute_finding_metrics,
    compute_operating_point,
)


def drawn(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(25) < rng.integers(1, 24))
    score = rng.integers(0, 6, 25) / 5 if ties else rng.random(25)
    return score + 0.2 * positive, positive


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0]))
def test_operating_point_is_the_best_of_all_thresholds(seed: int, ties: bool, asked: float):
    score, positive = drawn(seed, ties)
    found = compute_operating_point(score, positive, asked)
    tried = []
    for threshold in [*score, np.inf]:  # every way to call images of equal score alike
        called = score >= threshold
        tried.append(((called & positive).sum() / positive.sum(), (~called & ~positive).sum() / (~positive).sum()))
    assert found.sensitivity == max(sensitivity for sensitivity, specificity in tried if specificity >= asked - 1e-12)
    called = score >= found.threshold
    assert found.sensitivity == (called & positive).sum() / positive.sum()
    assert found.specificity == (~called & ~positive).sum() / (~positive).sum() >= asked - 1e-12


def test_images_of_equal_score_fall_on_one_side():
    positive = np.array([True, False, True, False, False, False])
    score = np.array([0.9, 0.5, 0.5, 0.1, 0.1, 0.1])  # a positive and a negative share 0.5
    half = compute_operating_point(score, positive, 0.75)
    assert (half.threshold, half.sensitivity, half.specificity) == (0.5, 1.0, 0.75)
    more = compute_operating_point(score, positive, 0.9)  # no half of the pair can be had: the threshold passes both
    assert (more.threshold, more.sensitivity, more.specificity) == (0.9, 0.5, 1.0)


def test_ten_negatives_reach_nine_tenths_exactly():
    positive = np.arange(20) >= 10
    score = np.arange(20) / 20
    score[9] = 2.0  # one negative above everything
    point = compute_operating_point(score, positive, 0.9)
    assert (point.sensitivity, point.specificity) == (1.0, 0.9)
    strict = compute_operating_point(score, positive, 0.95)
    assert (strict.sensitivity, strict.specificity, strict.threshold) == (0.0, 1.0, np.inf)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_average_precision_is_the_sum_over_thresholds(seed: int, ties: bool):
    score, positive = drawn(seed, ties)
    expected, recall_before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        called = score >= threshold
        recall = (called & positive).sum() / positive.sum()
        expected += (recall - recall_before) * (called & positive).sum() / called.sum()
        recall_before = recall
    assert compute_average_precision(score, positive) == pytest.approx(expected)


def test_one_sided_data_have_no_areas_and_no_sensitivity():
    for positive in (np.ones(4, bool), np.zeros(4, bool)):
        found = compute_finding_metrics(np.arange(4.0), positive)
        assert np.isnan([found.auroc, found.average_precision, *(p.sensitivity for p in found.points)]).all()
        assert found.positives + found.negatives == 4
    with pytest.raises(DataError, match="0 to 1"):
        compute_operating_point(np.arange(4.0), np.arange(4) > 1, 1.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_mcc_is_the_correlation_of_indicator_matrices(seed: int, classes: int):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 30)])
    predicted = np.where(rng.random(len(labels)) < 0.5, labels, rng.integers(0, classes, len(labels)))
    x, y = np.eye(classes)[predicted], np.eye(classes)[labels]
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())  # Gorodkin's covariances, not counts
    assert compute_mcc(predicted, labels, classes) == pytest.approx(expected)
    found = compute_classification_metrics(np.eye(classes)[predicted], labels, [str(i) for i in range(classes)])
    assert found.mcc == pytest.approx(expected)


def test_mcc_of_two_classes_is_the_phi_coefficient():
    labels = np.array([1] * 90 + [0] * 10)
    predicted = np.array([1] * 85 + [0] * 5 + [1] * 6 + [0] * 4)
    tp, fn, fp, tn = 85, 5, 6, 4
    phi = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert compute_mcc(predicted, labels, 2) == pytest.approx(phi)


def test_mcc_without_information():
    assert compute_mcc(np.zeros(5, int), np.array([0, 0, 1, 1, 2]), 3) == 0.0
    assert np.isnan(compute_mcc(np.array([0, 1]), np.array([1, 1]), 2))
