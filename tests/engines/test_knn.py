from __future__ import annotations

import numpy as np
import pytest
import tiny_run
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from monai_ssl_transfer.engines.pretraining.knn import (
    KNNOptions,
    LabelledEmbeddings,
    OnlineKNNHandler,
    answerable,
    knn_classify,
)
from monai_ssl_transfer.errors import DataError


def _reference(
    bank: np.ndarray, labels: np.ndarray, owners: np.ndarray, query: np.ndarray, patient: int, classes: int, k: int
) -> int:
    others = np.flatnonzero(owners != patient)
    similarity = bank[others] @ query
    nearest = np.argsort(-similarity)[:k]
    score = np.zeros(classes)
    np.add.at(score, labels[others][nearest], np.exp(similarity[nearest] / 0.07))
    return int(score.argmax())


@pytest.mark.parametrize(("bank_size", "k"), [(40, 20), (7, 20), (40_000, 20)])
def test_votes_equal_a_plain_loop_over_other_patients(bank_size: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    bank = functional.normalize(torch.randn(bank_size, 8, generator=generator), dim=1)
    queries = functional.normalize(torch.randn(30, 8, generator=generator), dim=1)
    labels = torch.randint(0, 5, (bank_size,), generator=generator)
    owners = torch.arange(bank_size) % 3
    patients = torch.arange(30) % 4  # patient 3 has nothing in the bank
    expected = [
        _reference(bank.double().numpy(), labels.numpy(), owners.numpy(), query, int(patient), 5, k)
        for query, patient in zip(queries.double().numpy(), patients, strict=True)
    ]
    found = knn_classify(LabelledEmbeddings(bank, labels, owners), queries, patients, 5, KNNOptions(neighbours=k))
    assert found.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 4)), min_size=1, max_size=60))
def test_only_classes_of_two_patients_are_asked_for(pairs: list[tuple[int, int]]) -> None:
    patients, labels = np.array(pairs).T
    chosen = set(answerable(labels, patients).tolist())
    for number, (patient, label) in enumerate(pairs):
        elsewhere = any(other != patient and one == label for other, one in pairs)
        assert (number in chosen) == (label >= 0 and elsewhere)


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
    assert len(handler.bank) == len(handler.queries) == 45
    assert handler.scores("cpu") == {"knn_accuracy": 1.0, "knn_balanced_accuracy": 1.0}
    assert encoder.training and not encoder.norm.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_embeddings_without_information_are_at_chance() -> None:
    class Blind(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(image), 2)

    handler = OnlineKNNHandler(Blind(), _BrightAndDark(), "single", options=KNNOptions(image_size=8))
    assert handler.scores("cpu")["knn_balanced_accuracy"] == pytest.approx(0.5, abs=0.1)


def test_a_store_without_labels_is_reported(caplog: pytest.LogCaptureFixture, tmp_path: object) -> None:
    handler = OnlineKNNHandler(_Means(), tiny_run.TinyStore(), "single")
    with caplog.at_level("INFO"):
        handler.attach(None)  # type: ignore[arg-type]
    assert "online kNN is left out" in caplog.text
    with pytest.raises(DataError, match="--labels"):
        handler.scores("cpu")
