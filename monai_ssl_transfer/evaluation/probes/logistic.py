"""Logistic regression on frozen embeddings: a convex problem, so that no learning rate needs to be found."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.protocol import (
    ProbeOutcome,
    best,
    check_task,
    score_name,
    validation_score,
)
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors, joined


@dataclass(frozen=True)
class LogisticProbe:
    """Multinomial logistic regression by L-BFGS with an L2 penalty (scikit-learn), C chosen on validation.

    Minimises 1/2 |W|^2 + C * sum over the cases of the cross-entropy; the intercept is not penalised. Where a case
    may have several findings, one regression per finding. DINOv2's evaluation sweeps 45 values of C over the same
    range; every power of ten of it is tried here.

    Args:
        penalties: values of C; the smaller, the stronger the penalty.
        standardise: subtract the training cases' mean and divide by their standard deviation, per dimension, so that
            one C means the same for every encoder. False: the embeddings as they are.
        iterations: of L-BFGS at most (1,000 in DINOv2); ``tried`` says which values of C needed more.
        refit: fit the chosen C again on training and validation cases together.
    """

    penalties: tuple[float, ...] = tuple(10.0**power for power in range(-6, 6))
    standardise: bool = True
    iterations: int = 1000
    refit: bool = False
    name: str = "logistic"

    def predict(
        self, train: LabelledVectors, validation: LabelledVectors, test: LabelledVectors, seed: int
    ) -> ProbeOutcome:
        """Fit, choose, predict; see `protocol.Probe`. Nothing is random.

        Raises:
            DataError: sets of different tasks, or no validation cases to choose on.
        """
        check_task(train, validation, test, multilabel=None, probe=self.name)
        if not self.penalties or min(self.penalties) <= 0:
            raise DataError(f"The values of C {self.penalties} must be above 0: correct them.")
        chosen: dict[str, Any] = {"C": self.penalties[0]}
        tried: list[dict[str, Any]] = []
        fits: dict[float, _Fit] = {}
        if len(self.penalties) > 1:
            if len(validation) == 0:
                raise DataError("C cannot be chosen without validation cases: give one value.")
            tried = self._tried(train, validation, fits)
            chosen = {"C": best(tried)["C"]}
        used = joined(train, validation) if self.refit and len(validation) else train
        if self.refit or not fits:
            fits = {chosen["C"]: _Fit(self, used, chosen["C"], None)}
        fit = fits[chosen["C"]]
        known: dict[str, Any] = {
            "standardise": self.standardise,
            "converged": fit.converged,
            "training_cases": len(used),
        }
        if fit.without_examples:
            known["classes_without_both_answers"] = fit.without_examples
        return ProbeOutcome(fit.probabilities(test), {**chosen, **known}, tried)

    def _tried(
        self, train: LabelledVectors, validation: LabelledVectors, fits: dict[float, _Fit]
    ) -> list[dict[str, Any]]:
        tried: list[dict[str, Any]] = []
        before = None
        for penalty in sorted(self.penalties):
            # from the solution of the next stronger penalty: fewer iterations to the same minimum
            before = fits[penalty] = _Fit(self, train, penalty, before)
            score = validation_score(before.probabilities(validation), validation)
            metric, converged = score_name(validation), before.converged
            tried.append({"C": penalty, "metric": metric, "score": score, "converged": converged})
        return tried


class _Fit:
    """The regressions of one value of C: one of all classes, or one per finding."""

    def __init__(self, probe: LogisticProbe, train: LabelledVectors, penalty: float, before: _Fit | None) -> None:
        x = train.vectors.double()
        self.mean, self.scale = torch.zeros(x.shape[1]).double(), torch.ones(x.shape[1]).double()
        if probe.standardise:
            spread = x.std(dim=0, correction=0)
            self.mean, self.scale = x.mean(dim=0), torch.where(spread > 0, spread, 1.0)
        self.classes = len(train.class_names)
        self.multilabel = train.multilabel
        self.converged = True
        self.models: list[Any] = []
        scaled = self._scaled(train.vectors)
        columns = train.targets.T if train.multilabel else train.targets[None]
        for number, column in enumerate(columns.numpy()):
            warm = None if before is None else before.models[number]
            self.models.append(self._fitted(probe, scaled, column, penalty, warm))
        self.without_examples = self._missing(train)

    def _fitted(self, probe: LogisticProbe, x: np.ndarray, y: np.ndarray, penalty: float, warm: Any) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(y)) < 2:
            return y[0]
        model = LogisticRegression(C=penalty, max_iter=probe.iterations, tol=1e-6, warm_start=True)
        if warm is not None:
            model.coef_, model.intercept_, model.classes_ = warm.coef_.copy(), warm.intercept_.copy(), warm.classes_
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(x, y)
        self.converged &= not any(issubclass(one.category, ConvergenceWarning) for one in caught)
        return model

    def _scaled(self, vectors: Tensor) -> np.ndarray:
        scaled: np.ndarray = ((vectors.double() - self.mean) / self.scale).numpy()
        return scaled

    def _missing(self, train: LabelledVectors) -> list[str]:
        """Classes that no training case has, and findings that all or none have."""
        if train.multilabel:
            shares = train.targets.mean(dim=0).tolist()
            return [name for name, share in zip(train.class_names, shares, strict=True) if share in (0, 1)]
        counts = torch.bincount(train.targets, minlength=self.classes).tolist()
        return [name for name, count in zip(train.class_names, counts, strict=True) if count == 0]

    def probabilities(self, data: LabelledVectors) -> Tensor:
        """(N, C) float32; a class that no training case has gets 0."""
        x = self._scaled(data.vectors)
        found = torch.zeros(len(data), self.classes)
        for number, model in enumerate(self.models):
            if len(data) == 0:
                break
            if not hasattr(model, "predict_proba"):  # the one answer that training cases gave
                column = number if self.multilabel else int(model)
                found[:, column] = float(model) if self.multilabel else 1.0
                continue
            shares = torch.from_numpy(model.predict_proba(x)).float()
            if self.multilabel:
                found[:, number] = shares[:, 1]
            else:
                found[:, torch.from_numpy(model.classes_)] = shares
        return found
