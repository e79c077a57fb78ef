"""Quality of probabilities for several findings that an image may show together: AUROC, average precision of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from monai_ssl_transfer.errors import DataError


@dataclass(frozen=True)
class OneFinding:
    """One finding against its absence; nan where the images have it all or not at all."""

    name: str
    positives: int
    negatives: int
    auroc: float
    average_precision: float


@dataclass(frozen=True)
class FindingsQuality:
    """All findings together.

    Args:
        auroc: mean over the findings that some images show and some do not; nan without any.
        average_precision: likewise.
        n: number of images.
        absent: findings that no image shows, and that therefore are in neither mean.
        always: findings that every image shows, likewise.
        findings: one `OneFinding` each.
    """

    auroc: float
    average_precision: float
    n: int
    absent: tuple[str, ...]
    always: tuple[str, ...]
    findings: tuple[OneFinding, ...]


def compute_findings(probabilities: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> FindingsQuality:
    """Judge the probabilities of several findings.

    Args:
        probabilities: (N, C), finite.
        targets: (N, C) of 0 and 1.
        names: one per finding.

    Raises:
        DataError: no image, shapes that do not fit, targets that are not 0 and 1, or values that are not finite.
    """
    if len(targets) == 0 or probabilities.shape != targets.shape or targets.shape[1:] != (len(names),):
        raise DataError(
            f"{probabilities.shape} probabilities cannot be judged with {targets.shape} targets of {len(names)} "
            "findings."
        )
    if not np.isin(targets, (0, 1)).all():
        raise DataError("the targets of several findings must be 0 or 1: correct the cases.")
    if not np.isfinite(probabilities).all():
        raise DataError("the network gives probabilities that are not finite: train it with a lower learning rate.")
    rows = tuple(_one_finding(name, probabilities[:, number], targets[:, number]) for number, name in enumerate(names))
    defined = [row for row in rows if row.positives and row.negatives]
    return FindingsQuality(
        auroc=float(np.mean([row.auroc for row in defined])) if defined else float("nan"),
        average_precision=float(np.mean([row.average_precision for row in defined])) if defined else float("nan"),
        n=len(targets),
        absent=tuple(row.name for row in rows if not row.positives),
        always=tuple(row.name for row in rows if not row.negatives),
        findings=rows,
    )


def _one_finding(name: str, scores: np.ndarray, truth: np.ndarray) -> OneFinding:
    positives = int(np.count_nonzero(truth))
    negatives = truth.size - positives
    if not positives or not negatives:
        return OneFinding(name, positives, negatives, float("nan"), float("nan"))
    found, known = torch.from_numpy(scores.astype(np.float64)), torch.from_numpy(truth.astype(np.int64))
    return OneFinding(
        name, positives, negatives, float(binary_auroc(found, known)), float(binary_average_precision(found, known))
    )


def compute_placements(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What every positive adds to the AUROC: the share of the negatives that score below it, ties counting half.

    Their mean is the AUROC (DeLong et al. 1988, https://doi.org/10.2307/2531595).

    Args:
        scores: (N,) larger means positive.
        truth: (N,) bool.

    Returns:
        (positives,) in the order of the images; empty without negatives.
    """
    negatives = np.sort(scores[~truth])
    if not len(negatives):
        return np.zeros(0)
    below = np.searchsorted(negatives, scores[truth], "left")
    up_to = np.searchsorted(negatives, scores[truth], "right")
    return (below + up_to) / (2 * len(negatives))
