"""The depth metrics of many photographs: an Ignite metric that writes CSV and summary."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine
from ignite.metrics import Metric

from monai_ssl_transfer.data.endoscopy.depth_transforms import DEPTH_UNIT_MM
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.depth import DepthMetrics, compute_depth_metrics

logger = logging.getLogger(__name__)

ERRORS = ("rmse_mm", "mae_mm", "median_relative_error")


@dataclass(frozen=True)
class DepthRow:
    """One row of `metrics.csv`: a photograph, the video that it comes from, its metrics."""

    name: str
    video: str
    metrics: DepthMetrics


class DepthErrorMetric(Metric):
    """Ignite metric over whole photographs: its value is minus the mean RMSE in mm, so that larger is better.

    When an epoch of validation ends, ``engine.state.metrics`` also holds the means of ``rmse_mm``, ``mae_mm`` and
    ``median_relative_error`` over the photographs. With several processes the photographs of all are gathered; one
    that two of them saw counts once.

    Args:
        output_dir: where `metrics.csv` (a row per photograph) and `summary.json` go; None writes nothing.
    """

    def __init__(self, output_dir: str | Path | None = None) -> None:
        self.output_dir = output_dir
        self.rows: dict[str, DepthRow] = {}
        super().__init__()

    def reset(self) -> None:
        """Forget all photographs."""
        self.rows = {}

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Add decollated items with "name", "group", "pred" and "label", (1, H, W); the label in units of 100 mm."""
        for item in output:
            truth = item["label"][0].detach().cpu().double().numpy() * DEPTH_UNIT_MM
            found = compute_depth_metrics(item["pred"][0].detach().cpu().double().numpy(), truth)
            name = str(item["name"])
            self.rows[name] = DepthRow(name, str(item.get("group", "")), found)

    def iteration_completed(self, engine: Engine) -> None:
        """Take the decollated output of the evaluator together with name and group from its batch."""
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        pairs = zip(batch, output, strict=True)
        self.update([{**found, "name": item["name"], "group": item.get("group", "")} for item, found in pairs])

    def compute(self) -> float:
        """Minus the mean RMSE, mm.

        Raises:
            DataError: no photograph has a pixel of known depth.
        """
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.rows)
            self.rows = {name: row for part in gathered for name, row in part.items()}
        if not self._judged():
            raise DataError(
                f"none of {len(self.rows)} photographs has a pixel with a known depth: check the depth files."
            )
        return -self._mean("rmse_mm")

    def completed(self, engine: Engine, name: str) -> None:
        """Store the value and its companions; write the files."""
        super().completed(engine, name)
        engine.state.metrics.update({error: self._mean(error) for error in ERRORS})
        if self.output_dir is not None and idist.get_rank() == 0:
            self.write(self.output_dir)
            logger.info("depth errors of %d photographs are in %s", len(self.rows), self.output_dir)

    def summary(self) -> dict[str, Any]:
        """Mean, SD (sample), median, minimum, maximum and n of every error, over the photographs and by video."""
        judged = self._judged()
        videos = {v: [row for row in judged if row.video == v] for v in sorted({row.video for row in judged})}
        return {
            "photographs": len(self.rows),
            "without_known_depth": len(self.rows) - len(judged),
            "near_taken_for_far": sum(row.metrics.scale < 0 for row in judged),
            "alignment": "scale and shift per photograph, least squares over the pixels with a depth above 0",
            "errors": {error: _distribution(judged, error) for error in ERRORS},
            "videos": {
                video: {
                    error: _distribution([r for r in judged if r.video == video], error)["mean"] for error in ERRORS
                }
                for video in videos
            },
        }

    def write(self, folder: str | Path) -> None:
        """Write `metrics.csv` and `summary.json` into a folder; an error that is not defined is an empty cell."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with (target / "metrics.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["name", "video", *(field.name for field in fields(DepthMetrics))])
            for row in self.rows.values():
                values = asdict(row.metrics).values()
                writer.writerow([row.name, row.video, *(_cell(value) for value in values)])
        (target / "summary.json").write_text(json.dumps(self.summary(), indent=2) + "\n")

    def _judged(self) -> list[DepthRow]:
        return [row for row in self.rows.values() if row.metrics.valid_pixels]

    def _mean(self, error: str) -> float:
        return _distribution(self._judged(), error)["mean"]


def _distribution(rows: Sequence[DepthRow], error: str) -> dict[str, float]:
    values = np.asarray([getattr(row.metrics, error) for row in rows], dtype=float)
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if values.size > 1 else 0.0,
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "n": int(values.size),
    }


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if np.isnan(value) else f"{value:.6g}"
