"""Boxes of many photographs: an Ignite metric that writes CSV and summary, and the files of an inference."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from torch import Tensor

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.evaluation.detection import (
    HIT,
    DetectedImage,
    ImageHits,
    compute_detection_metrics,
    compute_image_hits,
)

logger = logging.getLogger(__name__)

COLUMNS = ("boxes", "predicted", "hits", "missed", "false", "best_iou", "highest_score")
COORDINATES = (
    "x0, y0, x1, y1 in pixels of the upright photograph (EXIF orientation applied): x along the columns from the left, "
    "y along the rows from the top, 0 at the outer edge of the first pixel, x1 and y1 behind the last pixel of the box"
)


class BoxPrecisionMetric(Metric):
    """Ignite metric over whole photographs: its value is mAP@[.5:.95].

    When an epoch of validation ends, ``engine.state.metrics`` also holds ``map_50``, ``map_75`` and ``recall``. With
    several processes the photographs of all are gathered; one that two of them saw counts once.

    Args:
        output_dir: where `metrics.csv` (a row per photograph) and `summary.json` go; None writes nothing.
        score_threshold: boxes below do not count in the table per photograph; the average precision sees all that the
            network gives.
    """

    def __init__(self, output_dir: str | Path | None = None, score_threshold: float = 0.5) -> None:
        self.output_dir = output_dir
        self.score_threshold = score_threshold
        self.images: dict[str, DetectedImage] = {}
        super().__init__()

    def reset(self) -> None:
        """Forget all photographs."""
        self.images = {}

    def update(
        self, output: tuple[Sequence[str], Sequence[Mapping[str, Tensor]], Sequence[Mapping[str, Tensor]]]
    ) -> None:
        """Add (names, predictions with "boxes", "scores" and "labels", targets with "boxes" and "labels")."""
        for name, found, truth in zip(*output, strict=True):
            boxes, scores, labels = (_array(found[key]) for key in ("boxes", "scores", "labels"))
            true_boxes, true_labels = _array(truth["boxes"]), _array(truth["labels"])
            self.images[str(name)] = DetectedImage(str(name), boxes, scores, labels, true_boxes, true_labels)

    def iteration_completed(self, engine: Engine) -> None:
        """Take boxes from the output and names from the batch of an evaluator without decollating."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        self.update((batch["name"], output["pred"], output["label"]))

    def compute(self) -> float:
        """mAP@[.5:.95] of everything seen by any process."""
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.images)
            self.images = {name: image for part in gathered for name, image in part.items()}
        self.result = compute_detection_metrics(list(self.images.values()))
        return self.result.map

    def completed(self, engine: Engine, name: str) -> None:
        """Store the value and its companions; write the files."""
        super().completed(engine, name)
        found = asdict(self.result)
        engine.state.metrics.update({key: found[key] for key in ("map_50", "map_75", "recall")})
        if self.output_dir is not None and idist.get_rank() == 0:
            self.write(self.output_dir)
            logger.info("detection metrics of %d photographs are in %s", len(self.images), self.output_dir)

    def hits(self) -> dict[str, ImageHits]:
        """Hits and misses by photograph."""
        return {name: compute_image_hits(image, self.score_threshold) for name, image in self.images.items()}

    def summary(self) -> dict[str, Any]:
        """Average precision, and counts at the score threshold; null where something is not defined."""
        hits = list(self.hits().values())
        boxes, predicted, found = (sum(getattr(one, key) for one in hits) for key in ("boxes", "predicted", "hits"))
        free = [one for one in hits if not one.boxes]
        return {
            "photographs": len(hits),
            "photographs_without_box": len(free),
            "boxes": boxes,
            **{name: None if math.isnan(value) else value for name, value in asdict(self.result).items()},
            "at_threshold": {
                "score_threshold": self.score_threshold,
                "iou": HIT,
                "precision": found / predicted if predicted else None,
                "recall": found / boxes if boxes else None,
                "false_per_photograph": (predicted - found) / len(hits) if hits else None,
                "photographs_without_box_left_alone": sum(one.predicted == 0 for one in free),
            },
        }

    def write(self, folder: str | Path) -> None:
        """Write `metrics.csv` and `summary.json` into a folder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with (target / "metrics.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["name", *COLUMNS])
            for name, one in self.hits().items():
                writer.writerow([name, *(_cell(getattr(one, column)) for column in COLUMNS)])
        (target / "summary.json").write_text(json.dumps(self.summary(), indent=2) + "\n")


class BoxWriter:
    """MONAI handler for inference: the boxes of all photographs in `boxes.json` and `boxes.csv`.

    The JSON file lists every photograph, also one without a box; the CSV file has a row per box.

    Args:
        output_dir: folder of the two files.
        class_names: one per class, the first is label 1.
        score_threshold: boxes below are not written.
    """

    def __init__(self, output_dir: str | Path, class_names: Sequence[str], score_threshold: float = 0.5) -> None:
        self.folder = Path(output_dir)
        self.class_names = list(class_names)
        self.score_threshold = score_threshold
        self.found: dict[str, dict[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Connect to an evaluator that does not decollate."""
        engine.add_event_handler(Events.STARTED, lambda _: self.found.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        for name, image, found in zip(batch["name"], output["image"], output["pred"], strict=True):
            kept = found["scores"] >= self.score_threshold
            self.found[str(name)] = {
                "width": int(image.shape[-1]),
                "height": int(image.shape[-2]),
                "boxes": [[round(edge, 2) for edge in box] for box in found["boxes"][kept].tolist()],
                "scores": [round(score, 5) for score in found["scores"][kept].tolist()],
                "labels": [self.class_names[label - 1] for label in found["labels"][kept].tolist()],
            }

    def _write(self, _: Engine) -> None:
        content = {"coordinates": COORDINATES, "score_threshold": self.score_threshold, "photographs": self.found}
        text = json.dumps(content, indent=1) + "\n"
        write_durably(self.folder / "boxes.json", lambda file: file.write(text.encode()))
        rows = io.StringIO()
        writer = csv.writer(rows)
        writer.writerow(["photograph", "label", "score", "x0", "y0", "x1", "y1"])
        for name, one in self.found.items():
            for box, score, label in zip(one["boxes"], one["scores"], one["labels"], strict=True):
                writer.writerow([name, label, score, *box])
        write_durably(self.folder / "boxes.csv", lambda file: file.write(rows.getvalue().encode()))
        logger.info("boxes of %d photographs are in %s", len(self.found), self.folder / "boxes.json")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"
