"""Quality of one score for one finding: AUROC, average precision, and sensitivity at a fixed specificity.

An image counts as positive when its score is **at or above** the threshold, so that images of equal score always fall
on the same side: no point between two attained ones is made up by interpolation or by the order of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.classification import compute_auroc

_ROUNDING = 1e-9  # 0.9 x 10 negatives are 9 of them, whatever the last bit of the product says


@dataclass(frozen=True)
class OperatingPoint:
    """Of the thresholds that reach a specificity, the one of largest sensitivity; nan without both kinds of images.

    Args:
        specificity_asked: at least this share of the negatives must stay below the threshold.
        threshold: positive is a score at or above it; infinite when nothing may be called positive.
        sensitivity: share of the positives at or above it.
        specificity: share of the negatives below it.
    """

    specificity_asked: float
    threshold: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class FindingMetrics:
    """One finding against everything else; nan where there are no positives or no negatives.

    Args:
        auroc: area under the ROC curve, ties count half.
        average_precision: area under the precision-recall steps.
        points: one `OperatingPoint` per specificity asked for. Their thresholds are chosen on the same images.
        positives: number of images with the finding.
        negatives: number of images without it.
    """

    auroc: float
    average_precision: float
    points: tuple[OperatingPoint, ...]
    positives: int
    negatives: int


def compute_operating_point(score: np.ndarray, positive: np.ndarray, specificity: float) -> OperatingPoint:
    """Find the lowest threshold that reaches a specificity, and the sensitivity there.

    Candidates are the scores that occur, and infinity. Ties: images of equal score are called alike, so that the
    specificity may be higher than asked, never lower.

    Args:
        score: (N,) larger means positive.
        positive: (N,) bool.
        specificity: share of the negatives to call negative, 0 to 1.

    Raises:
        DataError: the specificity is out of range.
    """
    if not 0 <= specificity <= 1:
        raise DataError(f"a specificity of {specificity:g} was asked for: give one from 0 to 1.")
    negatives, positives = np.sort(score[~positive]), np.sort(score[positive])
    if negatives.size == 0 or positives.size == 0:
        return OperatingPoint(specificity, float("nan"), float("nan"), float("nan"))
    thresholds = np.append(np.unique(score), np.inf)
    below = np.searchsorted(negatives, thresholds, side="left")
    threshold = thresholds[int(np.argmax(below >= specificity * negatives.size - _ROUNDING))]
    hits = positives.size - int(np.searchsorted(positives, threshold, side="left"))
    kept = int(np.searchsorted(negatives, threshold, side="left"))
    return OperatingPoint(specificity, float(threshold), hits / positives.size, kept / negatives.size)


def compute_average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Sum of the precision at every threshold times the recall gained there; images of equal score enter together.

    Args:
        score: (N,) larger means positive.
        positive: (N,) bool.

    Returns:
        0 to 1, or nan without positives or without negatives.
    """
    total = int(np.count_nonzero(positive))
    if total == 0 or total == positive.size:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), positive.size - 1)  # the last image of every threshold
    hits = np.cumsum(positive[order])[last]
    return float(((np.diff(hits, prepend=0) / total) * (hits / (last + 1))).sum())


def compute_finding_metrics(
    score: np.ndarray, positive: np.ndarray, specificities: Sequence[float] = (0.9, 0.95)
) -> FindingMetrics:
    """Judge the score of one finding.

    Args:
        score: (N,) finite, larger means positive.
        positive: (N,) bool.
        specificities: where to give the sensitivity.
    """
    positives = int(np.count_nonzero(positive))
    return FindingMetrics(
        auroc=compute_auroc(score, positive),
        average_precision=compute_average_precision(score, positive),
        points=tuple(compute_operating_point(score, positive, one) for one in specificities),
        positives=positives,
        negatives=positive.size - positives,
    )
