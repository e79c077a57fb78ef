"""Quality of boxes: COCO's average precision over a set of photographs, and hits and misses per photograph.

A set without a single true box has no average precision. It is defined here as that of an empty mask is: 1 when nothing
is predicted either, else 0. A photograph without a true box among others needs no rule: what is predicted there counts
as false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

HIT = 0.5
"""IoU from which on a predicted box counts as a hit in the table per photograph."""

IOUS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()
"""COCO's own, in double precision: torchmetrics rounds them to float32, which moves a recall of exactly 0.2."""


@dataclass(frozen=True)
class DetectedImage:
    """Predicted and true boxes of one photograph.

    Args:
        name: of the photograph.
        boxes: (N, 4) float, x0 y0 x1 y1 in pixels.
        scores: (N,) float.
        labels: (N,) int, 1 is the first class.
        true_boxes: (M, 4) float.
        true_labels: (M,) int.
    """

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    true_boxes: np.ndarray
    true_labels: np.ndarray


@dataclass(frozen=True)
class DetectionMetrics:
    """A set of photographs.

    Args:
        map: average precision, mean over IoU 0.50, 0.55, ..., 0.95 and over the classes that occur.
        map_50: at IoU 0.5.
        map_75: at IoU 0.75.
        recall: average recall over the same IoUs with at most 100 boxes per photograph; nan without a true box.
    """

    map: float
    map_50: float
    map_75: float
    recall: float


@dataclass(frozen=True)
class ImageHits:
    """One photograph at one score threshold and IoU 0.5.

    Args:
        boxes: true boxes.
        predicted: boxes with at least the threshold's score.
        hits: predicted boxes that are matched with a true one of their class, each true one at most once.
        best_iou: largest IoU of a true box and a predicted one of its class; nan without a true box.
        highest_score: of all predicted boxes, whatever the threshold; 0 without any.
    """

    boxes: int
    predicted: int
    hits: int
    best_iou: float
    highest_score: float

    @property
    def missed(self) -> int:
        """True boxes that no predicted box hits."""
        return self.boxes - self.hits

    @property
    def false(self) -> int:
        """Predicted boxes that hit nothing."""
        return self.predicted - self.hits


def compute_detection_metrics(images: Sequence[DetectedImage]) -> DetectionMetrics:
    """COCO's average precision and recall (pycocotools behind torchmetrics), defined for every set."""
    if not any(len(image.true_boxes) for image in images):
        value = 0.0 if any(len(image.boxes) for image in images) else 1.0
        return DetectionMetrics(value, value, value, float("nan"))
    metric = MeanAveragePrecision(
        backend="pycocotools",
        iou_thresholds=IOUS,
        rec_thresholds=RECALLS,
        sync_on_compute=False,  # the images of all processes are gathered by now
    )
    metric.warn_on_many_detections = False
    for image in images:
        predicted = {"boxes": _boxes(image.boxes), "scores": torch.as_tensor(image.scores, dtype=torch.float32)}
        predicted["labels"] = torch.as_tensor(image.labels, dtype=torch.int64)
        truth = {"boxes": _boxes(image.true_boxes), "labels": torch.as_tensor(image.true_labels, dtype=torch.int64)}
        metric.update([predicted], [truth])
    found = metric.compute()
    return DetectionMetrics(*(float(found[name]) for name in ("map", "map_50", "map_75", "mar_100")))


def compute_image_hits(image: DetectedImage, score_threshold: float = 0.5) -> ImageHits:
    """Match the boxes of one photograph: the highest score first, each with the free true box of largest IoU."""
    kept = np.flatnonzero(image.scores >= score_threshold)
    kept = kept[np.argsort(-image.scores[kept], kind="stable")]
    overlap = box_iou(_boxes(image.boxes[kept]), _boxes(image.true_boxes)).numpy().astype(np.float64)
    overlap[image.labels[kept][:, None] != image.true_labels[None]] = 0.0
    best = float(overlap.max(initial=0.0)) if len(image.true_boxes) else float("nan")
    hits = 0
    for row in range(len(kept)):
        if overlap.shape[1] and overlap[row].max() >= HIT:
            overlap[:, overlap[row].argmax()] = 0.0
            hits += 1
    highest = float(image.scores.max(initial=0.0))
    return ImageHits(len(image.true_boxes), len(kept), hits, best, highest)


def _boxes(boxes: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
