from __future__ import annotations

import numpy as np
import pytest
import tiny_run
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from monai_ssl_transfer.engines.knn import KNNOptions, OnlineKNNHandler, knn_classify, split_by_patient
from monai_ssl_transfer.errors import DataError


def _reference(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, k: int) -> np.ndarray:
    votes = []
    for query in queries:
        similarity = bank @ query
        nearest = np.argsort(-similarity)[:k]
        score = np.zeros(classes)
        np.add.at(score, labels[nearest], np.exp(similarity[nearest] / 0.07))
        votes.append(score.argmax())
    return np.array(votes)


@pytest.mark.parametrize(("bank_size", "k"), [(40, 20), (7, 20), (40_000, 20)])
def test_votes_equal_a_plain_loop(bank_size: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    bank = functional.normalize(torch.randn(bank_size, 8, generator=generator), dim=1)
    queries = functional.normalize(torch.randn(30, 8, generator=generator), dim=1)
    labels = torch.randint(0, 5, (bank_size,), generator=generator)
    expected = _reference(bank.double().numpy(), labels.numpy(), queries.double().numpy(), 5, k)
    assert np.array_equal(knn_classify(bank, labels, queries, 5, KNNOptions(neighbours=k)).numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(
    patients=st.lists(st.integers(0, 9), min_size=1, max_size=80),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 99),
)
def test_no_patient_is_in_bank_and_queries(patients: list[int], fraction: float, seed: int) -> None:
    numbers = np.array(patients)
    labels = np.arange(len(numbers)) % 4 - 1  # a quarter is unlabelled
    bank, queries = split_by_patient(labels, numbers, fraction, seed)
    assert not set(numbers[bank]) & set(numbers[queries])
    assert sorted([*bank, *queries]) == np.flatnonzero(labels >= 0).tolist()
    if len(set(numbers[labels >= 0])) > 1:
        assert len(queries) > 0


class _BrightAndDark(tiny_run.TinyStore):
    """Twelve patients; bright slices are body part 2, dark ones 1, and a few are unknown."""

    def __init__(self) -> None:
        super().__init__(48)
        bright = np.arange(48) % 2 == 0
        self.slices[bright], self.slices[~bright] = 200, -400
        self.index["body_part"] = np.where(bright, 2, 1)
        self.index["body_part"][:3] = 255


class _Means(nn.Module):
    """Mean of a window, and a constant; batch norm would change in training mode, dropout would give noise."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.mean(dim=(1, 2, 3))
        return self.norm(torch.stack([mean, torch.ones_like(mean)], dim=1))


def test_handler_judges_and_leaves_the_encoder_alone() -> None:
    encoder = _Means().train()
    encoder.norm.eval()  # a frozen part of an encoder in training
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    handler = OnlineKNNHandler(encoder, _BrightAndDark(), "single", options=KNNOptions(image_size=8, neighbours=5))
    assert len(handler.bank) + len(handler.queries) == 45
    assert handler.scores("cpu") == {"knn_accuracy": 1.0, "knn_balanced_accuracy": 1.0}
    assert encoder.training and not encoder.norm.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_embeddings_without_information_are_at_chance() -> None:
    class Blind(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(image), 2)

    handler = OnlineKNNHandler(Blind(), _BrightAndDark(), "single", options=KNNOptions(image_size=8))
    assert handler.scores("cpu")["knn_balanced_accuracy"] == pytest.approx(0.5)


def test_a_store_without_labels_is_reported(caplog: pytest.LogCaptureFixture, tmp_path: object) -> None:
    handler = OnlineKNNHandler(_Means(), tiny_run.TinyStore(), "single")
    with caplog.at_level("INFO"):
        handler.attach(None)  # type: ignore[arg-type]
    assert "online kNN is left out" in caplog.text
    with pytest.raises(DataError, match="--labels"):
        handler.scores("cpu")
