from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes import PROBES
from monai_ssl_transfer.evaluation.probes.knn import KNNProbe
from monai_ssl_transfer.evaluation.probes.ml_knn import MLKNNProbe
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors

NAMES = ("normal", "polyp", "ulcer")


def _classes(count: int, seed: int, prefix: str, groups: int | None = None) -> LabelledVectors:
    """Three overlapping clouds."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    vectors = torch.randn(count, 6, generator=generator) + 1.2 * torch.eye(3, 6)[targets]
    owners = torch.arange(count) % (groups or count)
    names = tuple(f"{prefix}{number}" for number in range(count))
    return LabelledVectors(vectors, targets, names, tuple(f"{prefix}-{one}" for one in owners.tolist()), NAMES)


def _findings(count: int, seed: int, prefix: str, groups: int) -> LabelledVectors:
    one = _classes(count, seed, prefix, groups)
    hidden = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets = (one.vectors @ hidden > 0.8).float()
    return LabelledVectors(one.vectors, targets, one.cases, one.groups, NAMES)


def test_probes_are_found_by_name() -> None:
    assert PROBES["knn"] is KNNProbe and PROBES["ml_knn"] is MLKNNProbe
    assert all(PROBES[name]().name == name for name in PROBES)


def test_votes_equal_scikit_learn() -> None:
    train, test = _classes(90, 1, "a"), _classes(40, 2, "t")
    outcome = KNNProbe(neighbours=(7,)).predict(train, test.subset([]), test, 0)

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    peer = KNeighborsClassifier(7, metric="cosine", algorithm="brute", weights=weights)
    expected = peer.fit(train.vectors.numpy(), train.targets.numpy()).predict_proba(test.vectors.numpy())
    np.testing.assert_allclose(outcome.probabilities.numpy(), expected, atol=1e-4)
    assert outcome.chosen["neighbours"] == 7 and outcome.tried == []


def test_neighbours_are_chosen_on_validation_and_too_many_are_left_out() -> None:
    train, validation, test = _classes(60, 1, "a"), _classes(60, 2, "v"), _classes(9, 3, "t")
    outcome = KNNProbe(neighbours=(1, 5, 50, 500)).predict(train, validation, test, 0)
    scores = {one["neighbours"]: one["score"] for one in outcome.tried}
    assert list(scores) == [1, 5, 50]
    assert scores[outcome.chosen["neighbours"]] == max(scores.values())
    for neighbours, score in scores.items():
        alone = KNNProbe(neighbours=(neighbours,)).predict(train, test, validation, 0).probabilities.argmax(1)
        recalls = [(alone[validation.targets == c] == c).double().mean() for c in range(3)]
        assert score == pytest.approx(float(sum(recalls)) / 3)
    with pytest.raises(DataError, match="without validation cases"):
        KNNProbe(neighbours=(1, 5)).predict(train, validation.subset([]), test, 0)


def test_a_patient_never_votes_for_himself() -> None:
    """Every case is in the bank too, and each patient's cases carry a label that no other patient's neighbours have."""
    data = _classes(30, 1, "a", groups=3)  # group = class: the own group is the only one with the right answer
    outcome = KNNProbe(neighbours=(3,)).predict(data, data.subset([]), data, 0)
    assert (outcome.probabilities[torch.arange(30), data.targets] == 0).all()
    torch.testing.assert_close(outcome.probabilities.sum(1), torch.ones(30))


def test_findings_get_their_share_of_the_votes() -> None:
    train, test = _findings(80, 1, "a", 40), _findings(10, 2, "t", 5)
    outcome = KNNProbe(neighbours=(5,)).predict(train, test.subset([]), test, 0)
    bank = train.vectors / train.vectors.norm(dim=1, keepdim=True)
    for row, vector in enumerate(test.vectors):
        similarity = bank @ vector / vector.norm()
        near = sorted(range(80), key=lambda one: -similarity[one])[:5]
        weight = torch.tensor([float(similarity[one]) / 0.07 for one in near]).exp()
        expected = sum(w * train.targets[one] for w, one in zip(weight, near, strict=True)) / weight.sum()
        torch.testing.assert_close(outcome.probabilities[row], expected, atol=1e-4, rtol=0)


def test_draws_per_class_are_repeated_and_not_averaged() -> None:
    train, validation, test = _classes(90, 1, "a"), _classes(30, 2, "v"), _classes(20, 3, "t")
    outcome = KNNProbe(neighbours=(1, 3), per_class=4, repeats=3).predict(train, validation, test, 0)
    assert outcome.chosen["training_cases"] == 12 and len(outcome.draws) == 3
    assert torch.equal(outcome.probabilities, outcome.draws[0])
    assert not torch.equal(outcome.draws[0], outcome.draws[1])
    again = KNNProbe(neighbours=(1, 3), per_class=4, repeats=3).predict(train, validation, test, 0)
    assert all(torch.equal(one, two) for one, two in zip(outcome.draws, again.draws, strict=True))


def _plain_ml_knn(train: LabelledVectors, query: torch.Tensor, k: int, smooth: float = 1.0) -> list[float]:
    """Table 1 of Zhang & Zhou (2007), line by line, for one query; own group left out."""

    def near(vector: torch.Tensor, group: str) -> list[int]:
        others = [one for one in range(len(train)) if train.groups[one] != group]
        return sorted(others, key=lambda o: -float(torch.cosine_similarity(train.vectors[o], vector, dim=0)))[:k]

    def members(rows: list[int], finding: int) -> int:
        return sum(int(train.targets[row, finding]) for row in rows)

    around = [near(train.vectors[one], train.groups[one]) for one in range(len(train))]
    mine, result = near(query, "somebody else"), []
    for finding in range(train.targets.shape[1]):
        prior = (smooth + members(list(range(len(train))), finding)) / (2 * smooth + len(train))
        c, c_not = [0] * (k + 1), [0] * (k + 1)
        for one in range(len(train)):
            (c if train.targets[one, finding] else c_not)[members(around[one], finding)] += 1
        count = members(mine, finding)
        yes = prior * (smooth + c[count]) / (smooth * (k + 1) + sum(c))
        no = (1 - prior) * (smooth + c_not[count]) / (smooth * (k + 1) + sum(c_not))
        result.append(yes / (yes + no))
    return result


def test_ml_knn_equals_a_plain_loop() -> None:
    train, test = _findings(50, 1, "a", 20), _findings(8, 2, "t", 4)
    outcome = MLKNNProbe(neighbours=(6,)).predict(train, test.subset([]), test, 0)
    expected = torch.tensor([_plain_ml_knn(train, vector, 6) for vector in test.vectors])
    torch.testing.assert_close(outcome.probabilities, expected)


def test_ml_knn_chooses_on_validation_and_can_count_it_too() -> None:
    train, validation, test = _findings(60, 1, "a", 30), _findings(30, 2, "v", 15), _findings(8, 3, "t", 4)
    outcome = MLKNNProbe(neighbours=(3, 10, 900)).predict(train, validation, test, 0)
    assert [one["neighbours"] for one in outcome.tried] == [3, 10]
    assert outcome.tried[0]["metric"] == "mean_average_precision"
    assert MLKNNProbe(refit=True).predict(train, validation, test, 0).chosen["training_cases"] == 90
    with pytest.raises(DataError, match="several findings: use knn"):
        MLKNNProbe().predict(_classes(9, 0, "a"), _classes(9, 0, "a"), _classes(9, 0, "a"), 0)
