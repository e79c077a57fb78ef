from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_ssl_transfer.engines.embedding.nearest import nearest, weighted_vote
from monai_ssl_transfer.errors import DataError


def _brute_force(
    bank: Tensor, queries: Tensor, count: int, owners: Tensor | None = None, askers: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    bank, queries = bank.double(), queries.double()
    similarity = (queries / queries.norm(dim=1, keepdim=True)) @ (bank / bank.norm(dim=1, keepdim=True)).T
    if owners is not None and askers is not None:
        similarity[askers[:, None] == owners] = -torch.inf
    return similarity.topk(min(count, len(bank)), dim=1)


def _check(
    bank: Tensor, queries: Tensor, count: int, owners: Tensor | None = None, askers: Tensor | None = None
) -> None:
    expected, order = _brute_force(bank, queries, count, owners, askers)
    similarity, place = nearest(bank, queries, count, owners, askers)
    torch.testing.assert_close(similarity, expected.float(), rtol=0, atol=2e-6)
    # rows may change places only where their similarities are equal but for rounding
    wrong = (place != order) & (expected > -torch.inf)
    rows, columns = wrong.nonzero().unbind(1)
    assert wrong.float().mean() < 0.01
    again = torch.cosine_similarity(queries[rows].double(), bank[place[rows, columns]].double())
    torch.testing.assert_close(again, expected[rows, columns], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("size", "count"), [(3, 5), (100, 1), (4096, 20), (13_001, 1), (13_001, 20), (20_480, 200)])
def test_neighbours_equal_brute_force(size: int, count: int) -> None:
    generator = torch.Generator().manual_seed(size + count)
    bank = torch.randn(size, 12, generator=generator) * torch.rand(size, 1, generator=generator)
    queries = torch.randn(530, 12, generator=generator)  # more than one block of queries
    _check(bank, queries, count)
    _check(bank, queries, count, torch.arange(size) % 7, torch.arange(530) % 9)


@pytest.mark.parametrize("count", [3, 150])
def test_banks_in_the_worst_order(count: int) -> None:
    """Every tile holds only better rows than the one before, so that nothing can be left out early; and the reverse."""
    angles = torch.linspace(3.1, 0.01, 12_000, dtype=torch.float64)
    bank = torch.stack([angles.cos(), angles.sin()], dim=1).float()
    queries = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    similarity, place = nearest(bank, queries, count)
    assert place[0].sort().values.tolist() == list(range(12_000 - count, 12_000))
    assert place[1].sort().values.tolist() == list(range(count))
    expected = _brute_force(bank, queries, count)[0]
    torch.testing.assert_close(similarity, expected.float(), rtol=0, atol=2e-6)


def test_a_patient_who_owns_most_of_the_bank_leaves_fewer_neighbours() -> None:
    bank, queries = torch.randn(9000, 4), torch.randn(2, 4)
    owners = torch.zeros(9000, dtype=torch.int64)
    owners[[5, 8000]] = 1
    similarity, place = nearest(bank, queries, 4, owners, torch.tensor([0, 1]))
    assert (similarity[0] > -torch.inf).tolist() == [True, True, False, False]
    assert set(place[0, :2].tolist()) == {5, 8000}
    assert (similarity[1] > -torch.inf).all()


def test_inner_product() -> None:
    bank = torch.tensor([[1.0, 0.0], [5.0, 5.0], [0.9, 0.1]])
    similarity, place = nearest(bank, torch.tensor([[1.0, 0.0]]), 2, cosine=False)
    assert similarity.tolist() == [[5.0, 1.0]] and place.tolist() == [[1, 0]]


def test_votes_are_shares() -> None:
    similarity = torch.tensor([[0.9, 0.5, -torch.inf]])
    first, second = torch.exp(torch.tensor([0.9, 0.5]) / 0.1)
    shares = weighted_vote(similarity, torch.tensor([[2, 0, 1]]), 3, 0.1)
    torch.testing.assert_close(shares, torch.stack([second, first * 0, first])[None] / (first + second))
    findings = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    shares = weighted_vote(similarity, findings, 2, 0.1)
    torch.testing.assert_close(shares, torch.stack([first + second, second])[None] / (first + second))


def test_what_cannot_be_answered_is_refused() -> None:
    some, groups = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(DataError, match="embed both by one encoder"):
        nearest(some, torch.randn(2, 5), 1)
    with pytest.raises(DataError, match="one of each or more"):
        nearest(some[:0], some, 1)
    with pytest.raises(DataError, match="give both or none"):
        nearest(some, some, 1, groups)
    with pytest.raises(DataError, match="one per vector"):
        nearest(some, some, 1, groups[:2], groups)
    similarity, place = nearest(some, some, 2, groups, groups)
    with pytest.raises(DataError, match="no neighbour of another patient"):
        weighted_vote(similarity, groups[place], 1, 0.07)
