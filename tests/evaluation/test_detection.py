"""Average precision against a plain implementation of COCO's rules, and its defined values without any box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.evaluation.detection import (
    DetectedImage,
    compute_detection_metrics,
    compute_image_hits,
)


def image(
    name: str = "a",
    boxes: list | np.ndarray = (),
    scores: list | np.ndarray = (),
    truth: list | np.ndarray = (),
    labels: list | None = None,
) -> DetectedImage:
    found = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    true = np.asarray(truth, dtype=np.float32).reshape(-1, 4)
    return DetectedImage(
        name,
        found,
        np.asarray(scores, dtype=np.float32),
        np.asarray([1] * len(found) if labels is None else labels, dtype=np.int64),
        true,
        np.ones(len(true), dtype=np.int64),
    )


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inside / (sum(areas) - inside)


def average_precision(images: list[DetectedImage], iou: float) -> float:
    """COCO: greedy matching by score, precision made monotone, read at 101 recalls."""
    found = []
    for one in images:
        free = list(range(len(one.true_boxes)))
        for index in np.argsort(-one.scores, kind="stable"):
            candidates = [(overlap(one.boxes[index], one.true_boxes[j]), j) for j in free]
            hit = max(candidates, default=(0.0, -1))
            if hit[0] >= iou:
                free.remove(hit[1])
            found.append((one.scores[index], hit[0] >= iou))
    found.sort(key=lambda pair: -pair[0])
    hits = np.cumsum([pair[1] for pair in found])
    total = sum(len(one.true_boxes) for one in images)
    precision = hits / np.arange(1, len(found) + 1)
    recall = hits / total
    area = 0.0
    for level in np.linspace(0, 1, 101):
        reached = precision[recall >= level]
        area += reached.max() if len(reached) else 0.0
    return area / 101


def drawn(seed: int) -> list[DetectedImage]:
    rng = np.random.default_rng(seed)
    images = []
    for number in range(6):
        truth = box_draw(rng, rng.integers(0, 3))
        near = truth + rng.normal(0, 4, truth.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 2)
        boxes = np.concatenate([near, box_draw(rng, rng.integers(0, 3))])
        images.append(image(str(number), boxes, rng.permutation(1000)[: len(boxes)] / 1000 + number * 1e-5, truth))
    images.append(image("one", [[0, 0, 30, 30]], [0.77777], [[0, 0, 30, 31]]))
    return images


def box_draw(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(15, 40, (count, 2))], axis=1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_equals_a_plain_implementation(seed: int):
    images = drawn(seed)
    found = compute_detection_metrics(images)
    levels = np.linspace(0.5, 0.95, 10)
    expected = [average_precision(images, iou) for iou in levels]
    assert found.map == pytest.approx(np.mean(expected), abs=1e-5)
    assert found.map_50 == pytest.approx(expected[0], abs=1e-5)
    assert found.map_75 == pytest.approx(expected[5], abs=1e-5)


def test_known_values():
    perfect = [image("a", [[0, 0, 10, 10]], [0.9], [[0, 0, 10, 10]]), image("b")]
    assert compute_detection_metrics(perfect).map == pytest.approx(1)
    with_a_false_box_of_higher_score = [perfect[0], image("b", [[0, 0, 10, 10]], [0.95])]
    assert compute_detection_metrics(with_a_false_box_of_higher_score).map == pytest.approx(0.5)
    loose = compute_detection_metrics([image("a", [[0, 0, 10, 6.2]], [0.9], [[0, 0, 10, 10]])])
    assert (loose.map_50, loose.map_75) == (pytest.approx(1), 0)
    assert loose.map == pytest.approx(0.3)  # 0.50, 0.55 and 0.60 of ten levels


def test_no_prediction_at_all_is_nought():
    found = compute_detection_metrics([image("a", truth=[[0, 0, 10, 10]]), image("b")])
    assert (found.map, found.map_50, found.map_75, found.recall) == (0, 0, 0, 0)


@pytest.mark.parametrize(("boxes", "value"), [([], 1.0), ([[0, 0, 5, 5]], 0.0)])
def test_a_set_without_a_true_box_is_defined(boxes: list, value: float):
    found = compute_detection_metrics([image("a"), image("b", boxes, [0.1] * len(boxes))])
    assert (found.map, found.map_50, found.map_75) == (value, value, value)
    assert np.isnan(found.recall)


def test_hits_of_one_image():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 10, 10]]
    found = compute_image_hits(image("a", boxes, [0.9, 0.8, 0.7, 0.2], [[0, 0, 10, 10], [80, 80, 90, 90]]))
    assert (found.boxes, found.predicted, found.hits, found.missed, found.false) == (2, 3, 1, 1, 2)
    assert found.best_iou == pytest.approx(1)
    assert found.highest_score == pytest.approx(0.9)


def test_a_true_box_is_hit_once_and_only_by_its_class():
    other_class = image("a", [[0, 0, 10, 10]], [0.9], [[0, 0, 10, 10]], labels=[2])
    assert compute_image_hits(other_class).hits == 0
    second_best = image("a", [[0, 0, 10, 10], [0, 0, 10, 8]], [0.9, 0.8], [[0, 0, 10, 10], [0, 0, 10, 8]])
    assert compute_image_hits(second_best).hits == 2


def test_an_image_without_boxes_has_hits_too():
    found = compute_image_hits(image("a"))
    assert (found.boxes, found.predicted, found.hits, found.highest_score) == (0, 0, 0, 0.0)
    assert np.isnan(found.best_iou)
