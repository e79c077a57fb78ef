"""ML-kNN: nearest neighbours for several findings per case, by Bayes' rule on how many neighbours have a finding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ssl_transfer.engines.embedding.nearest import nearest
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.knn import usable_neighbours
from monai_ssl_transfer.evaluation.probes.protocol import (
    ProbeOutcome,
    best,
    check_task,
    score_name,
    validation_score,
)
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors, joined, shared_group_numbers

_AT_ONCE = 2**24


@dataclass(frozen=True)
class MLKNNProbe:
    """ML-kNN (Zhang & Zhou, Pattern Recognition 40, 2007, table 1) with cosine similarity.

    For every finding, the posterior of having it given how many of the k nearest training cases have it. The paper
    leaves a training case itself out of its neighbours; here its whole group (patient) is left out, which is the
    same where every case has a group of its own.

    Args:
        neighbours: k: the best of these on the validation cases (10 in the paper).
        smoothing: s of the paper's estimates; 1 is Laplace's.
        refit: count the validation cases too, once k is chosen (as Baharoon et al. 2023 do).
    """

    neighbours: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    smoothing: float = 1.0
    refit: bool = False
    name: str = "ml_knn"

    def predict(
        self, train: LabelledVectors, validation: LabelledVectors, test: LabelledVectors, seed: int
    ) -> ProbeOutcome:
        """Count and apply Bayes' rule; see `protocol.Probe`. Nothing is random.

        Raises:
            DataError: sets of different tasks, or cases with one class each.
        """
        check_task(train, validation, test, multilabel=True, probe=self.name)
        grid = usable_neighbours(self.neighbours, len(train) - 1)
        tried = []
        if len(grid) > 1:
            if len(validation) == 0:
                raise DataError("The number of neighbours cannot be chosen without validation cases: give one number.")
            scores = [validation_score(one, validation) for one in self.posteriors(train, validation, grid)]
            metric = score_name(validation)
            tried = [{"neighbours": k, "metric": metric, "score": one} for k, one in zip(grid, scores, strict=True)]
        chosen = best(tried) if tried else {"neighbours": grid[0]}
        bank = joined(train, validation) if self.refit and len(validation) else train
        probabilities = self.posteriors(bank, test, [chosen["neighbours"]])[0]
        return ProbeOutcome(probabilities, {**chosen, "training_cases": len(bank)}, tried)

    def posteriors(self, bank: LabelledVectors, queries: LabelledVectors, grid: list[int]) -> list[Tensor]:
        """Posterior of every finding for several numbers of neighbours, which are looked up once.

        Args:
            bank: the N training cases.
            queries: Q cases.
            grid: numbers of neighbours.

        Returns:
            (Q, C) float32 for each number.
        """
        known, asked = (_counts(bank, one, grid) for one in (bank, queries))
        return [self._posterior(bank.targets, one, two, k) for one, two, k in zip(known, asked, grid, strict=True)]

    def _posterior(self, targets: Tensor, known: Tensor, asked: Tensor, neighbours: int) -> Tensor:
        """Equations 2, 4 and 5: (Q, C) from the counts among the neighbours, (N, C) and (Q, C)."""
        smooth, has = self.smoothing, targets.bool()
        prior = (smooth + targets.double().sum(dim=0)) / (2 * smooth + len(targets))
        likelihoods = []
        for rows in (has, ~has):
            table = torch.zeros(neighbours + 1, targets.shape[1], dtype=torch.float64)
            table.scatter_add_(0, known, rows.double())
            table = (smooth + table) / (smooth * (neighbours + 1) + table.sum(dim=0))
            likelihoods.append(table.gather(0, asked))
        with_it, without_it = prior * likelihoods[0], (1 - prior) * likelihoods[1]
        return (with_it / (with_it + without_it)).float()


def _counts(bank: LabelledVectors, queries: LabelledVectors, grid: list[int]) -> list[Tensor]:
    """(Q, C) int64 for each number of neighbours: how many of them have the finding."""
    owners, askers = shared_group_numbers(bank, queries)
    similarity, place = nearest(bank.vectors, queries.vectors, max(grid), owners, askers)
    rows = max(1, _AT_ONCE // (max(grid) * bank.targets.shape[1]))
    counted: list[list[Tensor]] = [[] for _ in grid]
    for near, where in zip(similarity.split(rows), place.split(rows), strict=True):
        # -inf is a case of the same group, which is no neighbour
        found = bank.targets[where] * (near > -torch.inf)[:, :, None]
        for parts, k in zip(counted, grid, strict=True):
            parts.append(found[:, :k].sum(dim=1).long())
    return [torch.cat(parts) for parts in counted]
