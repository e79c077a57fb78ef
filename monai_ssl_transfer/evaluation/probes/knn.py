"""k nearest neighbours on frozen embeddings: a weighted vote by cosine, nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_ssl_transfer.engines.embedding.nearest import nearest, weighted_vote
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.draws import draw_per_class
from monai_ssl_transfer.evaluation.probes.protocol import (
    ProbeOutcome,
    best,
    check_task,
    score_name,
    validation_score,
)
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors, joined, shared_group_numbers

_AT_ONCE = 2**24  # numbers that are gathered for a vote at most: 64 MiB


@dataclass(frozen=True)
class KNNProbe:
    """Weighted vote of the nearest training cases (Wu et al. 2018, section 3.4; DINO, appendix F.2).

    Similarities are cosines; a neighbour's weight is exp(similarity / temperature); a case of the query's own group
    never votes. The votes' shares are the probabilities; of several findings, each one's share of the votes.

    Args:
        neighbours: how many vote: the best of these on the validation cases (the defaults are those of DINO and of
            Baharoon et al. 2023 together). Numbers above the number of training cases are left out.
        temperature: 0.07 in both.
        per_class: draw so many training cases of every class (DINOv2's ``n_per_class``); None: take all.
        repeats: how many such draws.
        refit: let the validation cases vote too, once the number of neighbours is chosen.
    """

    neighbours: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)
    temperature: float = 0.07
    per_class: int | None = None
    repeats: int = 5
    refit: bool = False
    name: str = "knn"

    def predict(
        self, train: LabelledVectors, validation: LabelledVectors, test: LabelledVectors, seed: int
    ) -> ProbeOutcome:
        """Vote; see `protocol.Probe`.

        Raises:
            DataError: sets of different tasks, a case without neighbours, or a class with too few cases to draw from.
        """
        check_task(train, validation, test, multilabel=None, probe=self.name)
        banks = self._banks(train, seed)
        grid = usable_neighbours(self.neighbours, min(len(bank) for bank in banks))
        tried = self._tried(banks, validation, grid)
        chosen = best(tried) if tried else {"neighbours": grid[0]}
        if self.refit and len(validation):
            banks = [joined(bank, validation) for bank in banks]
        draws = [votes(bank, test, [chosen["neighbours"]], self.temperature)[0] for bank in banks]
        settings = {**chosen, "temperature": self.temperature, "training_cases": len(banks[0])}
        return ProbeOutcome(draws[0], settings, tried, tuple(draws) if self.per_class else ())

    def _banks(self, train: LabelledVectors, seed: int) -> list[LabelledVectors]:
        if self.per_class is None:
            return [train]
        count = max(1, self.repeats)
        return [draw_per_class(train, self.per_class, seed + 1000 * draw, grouped=False) for draw in range(count)]

    def _tried(
        self, banks: list[LabelledVectors], validation: LabelledVectors, grid: list[int]
    ) -> list[dict[str, Any]]:
        if len(grid) == 1:
            return []
        if len(validation) == 0:
            raise DataError("The number of neighbours cannot be chosen without validation cases: give one number.")
        found = [votes(bank, validation, grid, self.temperature) for bank in banks]
        metric, tried = score_name(validation), []
        for number, k in enumerate(grid):
            scores = [validation_score(shares[number], validation) for shares in found]
            known = [one for one in scores if one is not None]
            mean = sum(known) / len(known) if known else None
            tried.append({"neighbours": k, "metric": metric, "score": mean})
        return tried


def usable_neighbours(neighbours: tuple[int, ...], most: int) -> list[int]:
    """Those numbers of neighbours that there are; the largest possible one where there are fewer than all of them.

    Raises:
        DataError: no number is given, or one is below 1.
    """
    if not neighbours or min(neighbours) < 1:
        raise DataError(f"The numbers of neighbours {neighbours} are no numbers of 1 and more: correct them.")
    return sorted({k for k in neighbours if k <= most}) or [most]


def votes(bank: LabelledVectors, queries: LabelledVectors, grid: list[int], temperature: float) -> list[Tensor]:
    """Shares of the votes for several numbers of neighbours, which are looked up once.

    Args:
        bank: who votes.
        queries: who is classified; cases of a query's own group do not vote.
        grid: numbers of neighbours.
        temperature: of the weights.

    Returns:
        (N, C) for each number.

    Raises:
        DataError: a query has no neighbour of another group.
    """
    owners, askers = shared_group_numbers(bank, queries)
    similarity, place = nearest(bank.vectors, queries.vectors, max(grid), owners, askers)
    classes = len(bank.class_names)
    # the findings of every neighbour of every query would be gigabytes
    rows = max(1, _AT_ONCE // (max(grid) * (classes if bank.multilabel else 1)))
    pairs = list(zip(similarity.split(rows), place.split(rows), strict=True))
    return [
        torch.cat(
            [weighted_vote(near[:, :k], bank.targets[where[:, :k]], classes, temperature) for near, where in pairs]
        )
        for k in grid
    ]
