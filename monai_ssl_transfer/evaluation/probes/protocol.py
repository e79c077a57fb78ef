"""What a probe is, and how its settings are judged on the validation cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors


@dataclass
class ProbeOutcome:
    """What a probe says of the test cases.

    Args:
        probabilities: (N, C) float32; a row adds up to 1, except where cases have several findings.
        chosen: the settings that were chosen on validation.
        tried: every setting with its score on validation (``score``; ``metric`` names it).
        draws: (N, C) probabilities of every repeated draw of the training cases; ``probabilities`` are those of the
            first. Never averaged over the draws: that would be an ensemble, which scores better than what it is
            made of. Empty where nothing is drawn.
    """

    probabilities: Tensor
    chosen: dict[str, Any] = field(default_factory=dict)
    tried: list[dict[str, Any]] = field(default_factory=list)
    draws: tuple[Tensor, ...] = ()


class Probe(Protocol):
    """Learns from frozen embeddings and predicts; a frozen dataclass of its published settings."""

    @property
    def name(self) -> str:
        """Its name in `PROBES`."""

    def predict(
        self, train: LabelledVectors, validation: LabelledVectors, test: LabelledVectors, seed: int
    ) -> ProbeOutcome:
        """Learn on ``train``, choose settings on ``validation``, predict ``test`` (whose targets are never read).

        Args:
            train: what is learned from.
            validation: what settings are chosen on; may be empty where there is nothing to choose.
            test: what is predicted.
            seed: source of all randomness.

        Returns:
            Probabilities of the test cases, and how they came about.
        """


def score_name(data: LabelledVectors) -> str:
    """The figure that settings are chosen by: balanced accuracy, or mean average precision for several findings."""
    return "mean_average_precision" if data.multilabel else "balanced_accuracy"


def validation_score(probabilities: Tensor, data: LabelledVectors) -> float | None:
    """Judge predictions of the validation cases: higher is better.

    Args:
        probabilities: (N, C).
        data: the N validation cases.

    Returns:
        Mean recall of the classes that occur; for several findings the mean average precision of those that occur.
        None where there is no case or no finding, or a probability is not a number.
    """
    if len(data) == 0 or not bool(probabilities.isfinite().all()):
        return None
    if not data.multilabel:
        predicted = probabilities.argmax(dim=1)
        hits = (predicted == data.targets).double()
        counts = torch.bincount(data.targets, minlength=len(data.class_names))
        right = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, data.targets, hits)
        present = counts > 0
        return float((right[present] / counts[present]).mean())
    from sklearn.metrics import average_precision_score

    columns = [
        average_precision_score(data.targets[:, one].numpy(), probabilities[:, one].numpy())
        for one in range(len(data.class_names))
        if data.targets[:, one].any()
    ]
    return float(np.mean(columns)) if columns else None


def best(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The first of the tried settings with the highest score, without the score.

    Raises:
        DataError: no setting has a score.
    """
    known = [one for one in tried if one["score"] is not None]
    if not known:
        raise DataError(
            "No setting of the probe has a score on the validation cases: add cases that have the findings, or lower "
            "the learning rates."
        )
    chosen = max(known, key=lambda one: one["score"])
    return {key: value for key, value in chosen.items() if key not in ("score", "metric")}


def check_task(train: LabelledVectors, *others: LabelledVectors, multilabel: bool | None, probe: str) -> None:
    """Refuse sets that a probe cannot work on.

    Args:
        train: what is learned from.
        others: validation and test.
        multilabel: the kind of targets the probe is for; None for both.
        probe: its name, for the message.

    Raises:
        DataError: empty training set, sets of different tasks, or the other kind of targets.
    """
    if len(train) == 0:
        raise DataError("There are no training cases to probe with: check the split and the fraction.")
    for other in others:
        if other.class_names != train.class_names or other.multilabel != train.multilabel:
            raise DataError("The sets of a probe have different classes: take training and test cases of one task.")
        if other.vectors.shape[1:] != train.vectors.shape[1:]:
            raise DataError("The sets of a probe have embeddings of different lengths: embed them by one encoder.")
    if multilabel is not None and train.multilabel != multilabel:
        wanted, remedy = ("several findings", "knn") if multilabel else ("one class per case", "ml_knn")
        raise DataError(f"The probe {probe} is for {wanted}: use {remedy} or logistic for this task.")
