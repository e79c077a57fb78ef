"""The metric of an image classification: one class per image or volume of slices, or several findings per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine
from ignite.metrics import Metric

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.classification_report import ClassificationMetric, _Sample
from monai_ssl_transfer.evaluation.findings_report import FindingsMetric


class VolumeClassificationMetric(ClassificationMetric):
    """`ClassificationMetric` whose samples are volumes: the probabilities of a volume's slices are averaged.

    The batch tells the volume of every slice under "volume"; an image that is its own volume stays as it is. A volume
    is named in `predictions.csv` by its name in place of a file.

    Args:
        class_names: as for `ClassificationMetric`.
        output_dir: likewise.
        value: likewise.
        support: likewise.
        root: likewise.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        output_dir: str | Path | None = None,
        value: str = "macro_f1",
        support: Mapping[str, Mapping[str, int]] | None = None,
        root: str | Path | None = None,
    ) -> None:
        self.volumes: dict[int | str, str] = {}
        super().__init__(class_names, output_dir, value, None, support, root)

    def reset(self) -> None:
        """Forget all slices."""
        super().reset()
        self.volumes = {}

    def iteration_completed(self, engine: Engine) -> None:
        """Take what `ClassificationMetric` takes, and the volumes."""
        batch: Any = engine.state.batch
        self.volumes.update(zip(batch["name"], batch["volume"], strict=True))
        super().iteration_completed(engine)

    def _gather(self) -> None:
        super()._gather()
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(self.volumes)
            self.volumes = {name: volume for part in gathered for name, volume in part.items()}
        self.found = mean_over_volumes(self.found, self.volumes)


def mean_over_volumes(found: Mapping[int | str, _Sample], volumes: Mapping[int | str, str]) -> dict[int | str, _Sample]:
    """Average the probabilities of the slices of every volume.

    Args:
        found: judged slices by name.
        volumes: volume by the name of a slice; a slice without one is its own.

    Raises:
        DataError: slices of one volume with different classes.
    """
    members: dict[int | str, list[_Sample]] = {}
    for name, sample in found.items():
        members.setdefault(volumes.get(name, name), []).append(sample)
    averaged: dict[int | str, _Sample] = {}
    for volume, samples in members.items():
        if len({one.label for one in samples}) > 1:
            raise DataError(f"the slices of {volume} have different classes: give a volume one class.")
        alone = len(samples) == 1 and volume in found
        file = samples[0].file if alone else str(PurePath(str(volume)))
        probabilities = np.mean([one.probabilities for one in samples], axis=0)
        averaged[volume] = _Sample(probabilities, samples[0].label, file)
    return averaged


def image_metrics(
    class_names: Sequence[str],
    multilabel: bool,
    output_dir: str | Path | None = None,
    support: Mapping[str, Mapping[str, int]] | None = None,
    root: str | Path | None = None,
) -> dict[str, Metric]:
    """The key metric of an evaluator, by its name.

    Args:
        class_names: one per output.
        multilabel: whether an image may show several classes or none.
        output_dir: where the files go; None writes nothing.
        support: images by part and class.
        root: files are named relative to this folder.

    Returns:
        {"auroc": macro AUROC over findings} or {"macro_f1": over classes, per volume}.
    """
    if multilabel:
        return {"auroc": FindingsMetric(class_names, output_dir, "auroc", support, root)}
    return {"macro_f1": VolumeClassificationMetric(class_names, output_dir, "macro_f1", support, root)}
