"""Classification quality from probabilities, per class and together: accuracy, balanced accuracy, macro F1, MCC, AUROC.

Classes that the data do not contain have no recall and no AUROC: they stay out of balanced accuracy and macro AUROC,
and the result names them. Macro F1 is the mean over the classes that occur in the truth or in the predictions
(scikit-learn's convention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from monai_ssl_transfer.errors import DataError


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest; nan where the class (or the rest) does not occur."""

    name: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float
    auroc: float


@dataclass(frozen=True)
class ClassificationMetrics:
    """All classes together.

    Args:
        accuracy: share of correct predictions (largest probability).
        balanced_accuracy: mean recall over the classes that occur.
        macro_f1: mean F1 over the classes that occur or are predicted.
        mcc: Matthews correlation coefficient of all classes (Gorodkin's R_K); 0 when one class is predicted throughout,
            nan when the truth holds one class only.
        auroc: macro mean of one-versus-rest AUROC over the classes that occur.
        n: number of samples.
        absent: classes without a sample.
        classes: one `ClassMetrics` each.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    mcc: float
    auroc: float
    n: int
    absent: tuple[str, ...]
    classes: tuple[ClassMetrics, ...]


def compute_auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve by the rank statistic of Mann and Whitney; ties count half.

    Args:
        score: (N,) larger means positive.
        positive: (N,) bool.

    Returns:
        The area, or nan when all samples are on one side.
    """
    positives = int(np.count_nonzero(positive))
    negatives = positive.size - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def compute_mcc(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Matthews correlation coefficient for any number of classes.

    Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006, from counts.

    Args:
        predicted: (N,) integers in range(classes).
        labels: (N,) integers in range(classes).
        classes: number of classes.

    Returns:
        -1 to 1; 0 when one class is predicted throughout; nan when the truth holds one class only, where there is
        nothing to correlate with.
    """
    total = len(labels)
    true = np.bincount(labels, minlength=classes).astype(np.float64)
    found = np.bincount(predicted, minlength=classes).astype(np.float64)
    spread_true, spread_found = total**2 - (true**2).sum(), total**2 - (found**2).sum()
    if spread_true == 0:
        return float("nan")
    if spread_found == 0:
        return 0.0
    covariance = float((predicted == labels).sum()) * total - (true * found).sum()
    return float(covariance / np.sqrt(spread_true * spread_found))


def compute_classification_metrics(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> ClassificationMetrics:
    """Judge the predictions of a classifier.

    Args:
        probabilities: (N, classes), finite.
        labels: (N,) integers in range(classes).
        class_names: one per class.

    Returns:
        Metrics together and per class.

    Raises:
        DataError: no sample, shapes that do not fit, labels out of range, or values that are not finite.
    """
    count = len(class_names)
    if len(labels) == 0 or probabilities.shape != (len(labels), count):
        raise DataError(
            f"{probabilities.shape} probabilities cannot be judged with {len(labels)} labels of {count} classes."
        )
    if labels.min() < 0 or labels.max() >= count:
        raise DataError(f"labels run from {labels.min()} to {labels.max()}, but there are only {count} classes.")
    if not np.isfinite(probabilities).all():
        raise DataError("the network gives probabilities that are not finite: train it with a lower learning rate.")
    predicted = probabilities.argmax(axis=1)
    classes = tuple(_class_metrics(i, name, probabilities, predicted, labels) for i, name in enumerate(class_names))
    occurring = [c for c in classes if c.support > 0]
    seen = [c for c in classes if c.support + c.predicted > 0]
    areas = [c.auroc for c in occurring if not np.isnan(c.auroc)]
    return ClassificationMetrics(
        accuracy=float((predicted == labels).mean()),
        balanced_accuracy=float(np.mean([c.recall for c in occurring])),
        macro_f1=float(np.mean([c.f1 for c in seen])),
        mcc=compute_mcc(predicted, labels, count),
        auroc=float(np.mean(areas)) if areas else float("nan"),
        n=len(labels),
        absent=tuple(c.name for c in classes if c.support == 0),
        classes=classes,
    )


def _class_metrics(
    number: int, name: str, probabilities: np.ndarray, predicted: np.ndarray, labels: np.ndarray
) -> ClassMetrics:
    truth, found = labels == number, predicted == number
    support, chosen, hits = int(truth.sum()), int(found.sum()), int((truth & found).sum())
    return ClassMetrics(
        name=name,
        support=support,
        predicted=chosen,
        precision=hits / chosen if chosen else float("nan"),
        recall=hits / support if support else float("nan"),
        f1=2 * hits / (support + chosen) if support + chosen else float("nan"),
        auroc=compute_auroc(probabilities[:, number], truth),
    )
