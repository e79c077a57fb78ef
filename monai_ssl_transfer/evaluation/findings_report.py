"""Files of a run with several findings per image: quality per finding, a summary, the prediction for every image."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine
from ignite.metrics import Metric
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.findings import FindingsQuality, OneFinding, compute_findings
from monai_ssl_transfer.evaluation.photograph_predictions import (
    PREDICTIONS,
    append_rows,
    finding_cells,
    joined_findings,
    path_below,
    start_predictions,
)

logger = logging.getLogger(__name__)

VALUES = ("auroc", "average_precision")


@dataclass(frozen=True)
class JudgedImage:
    """One image: (C,) probabilities, (C,) truth of 0 and 1, and its file."""

    probabilities: np.ndarray
    truth: np.ndarray
    file: str


class FindingsMetric(Metric):
    """Ignite metric over all images, gathered over all processes; one that comes twice counts once.

    Its value is the macro AUROC or the macro average precision; ``engine.state.metrics`` holds both.

    Args:
        class_names: one per finding, in the order of the logits.
        output_dir: where `metrics.csv`, `summary.json` and `predictions.csv` go; None writes nothing.
        value: "auroc" or "average_precision".
        support: images by part and finding (`class_support`), for the summary.
        root: files are named relative to this folder where they lie below it.

    Raises:
        DataError: unknown value.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        output_dir: str | Path | None = None,
        value: str = "auroc",
        support: Mapping[str, Mapping[str, int]] | None = None,
        root: str | Path | None = None,
    ) -> None:
        if value not in VALUES:
            raise DataError(f"the metric has no '{value}': choose one of {', '.join(VALUES)}.")
        self.class_names, self.value = list(class_names), value
        self.output_dir, self.support, self.root = output_dir, support, root
        self.found: dict[str, JudgedImage] = {}
        super().__init__()

    def reset(self) -> None:
        """Forget all images."""
        self.found = {}

    def update(self, output: tuple[Tensor, Tensor, Sequence[str], Sequence[str]]) -> None:
        """Add (logits (B, C), truth (B, C) of 0 and 1, names (B), files (B))."""
        probabilities = output[0].detach().float().sigmoid().cpu().numpy()
        truth = output[1].detach().cpu().numpy()
        for row, known, name, file in zip(probabilities, truth, output[2], output[3], strict=True):
            self.found[name] = JudgedImage(row, known, file)

    def iteration_completed(self, engine: Engine) -> None:
        """Take logits and truth from the output and the names from the batch of an evaluator without decollating."""
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        files = [path_below(one, self.root) for one in batch["image_path"]]
        self.update((output["pred"], output["label"], list(batch["name"]), files))

    def compute(self) -> float:
        """The macro mean that the metric stands for."""
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.found)
            self.found = {name: one for part in gathered for name, one in part.items()}
        self.found = {name: self.found[name] for name in sorted(self.found)}
        self.result = compute_findings(*self.arrays(), self.class_names)
        return float(getattr(self.result, self.value))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) probabilities and (N, C) truth of everything seen."""
        empty = np.zeros((0, len(self.class_names)))
        rows = list(self.found.values())
        return (
            np.stack([one.probabilities for one in rows]) if rows else empty,
            np.stack([one.truth for one in rows]) if rows else empty,
        )

    def completed(self, engine: Engine, name: str) -> None:
        """Store the values; say which findings they leave out; write the files."""
        super().completed(engine, name)
        engine.state.metrics.update({value: float(getattr(self.result, value)) for value in VALUES})
        for what, names in (("no image shows", self.result.absent), ("every image shows", self.result.always)):
            if names:
                logger.warning("%s %s: the means leave it out", what, ", ".join(names))
        if self.output_dir is not None and idist.get_rank() == 0:
            self._write(Path(self.output_dir))

    def _write(self, folder: Path) -> None:
        write_findings(self.result, folder, {} if self.support is None else {"support": self.support})
        start_predictions(folder / PREDICTIONS, self.class_names)
        rows = [
            [
                one.file,
                joined_findings(one.truth, self.class_names),
                *finding_cells(one.probabilities, self.class_names),
            ]
            for one in self.found.values()
        ]
        append_rows(folder / PREDICTIONS, rows)
        logger.info("metrics of %d images are in %s", self.result.n, folder)


def write_findings(quality: FindingsQuality, folder: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write `metrics.csv` (a row per finding) and `summary.json`; what is not defined is empty or null.

    Args:
        quality: of all images.
        folder: made if it does not exist.
        extra: more entries of the summary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(OneFinding)])
        for row in quality.findings:
            writer.writerow(["" if isinstance(one, float) and math.isnan(one) else one for one in astuple(row)])
    summary: dict[str, Any] = {name: getattr(quality, name) for name in VALUES}
    summary = {name: value if math.isfinite(value) else None for name, value in summary.items()}
    summary |= {"n": quality.n, "absent_classes": list(quality.absent), "always_shown": list(quality.always)}
    (folder / "summary.json").write_text(json.dumps(summary | dict(extra or {}), indent=2) + "\n")
