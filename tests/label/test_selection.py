"""The selections against brute force: clusters that were planted, distances one by one, the best of all subsets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.label.selection import (
    NEIGHBOURS,
    dense_and_uncertain,
    density,
    similar_first,
    spread,
    typical_first,
    typicality,
    unit,
)

SIZES = (40, 30, 20, 10)


def planted(seed: int, sizes: tuple[int, ...] = SIZES, width: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Blobs at the corners of a simplex, and the blob of every row."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.eye(len(sizes), 8)
    return (centres[owner] + width * rng.standard_normal((len(owner), 8))).astype(np.float32), owner


def slow_typicality(vectors: np.ndarray, neighbours: int) -> list[float]:
    """Equation 1, pair by pair."""
    found = []
    for row, own in enumerate(vectors):
        others = sorted(math.dist(own, other) for place, other in enumerate(vectors) if place != row)[:neighbours]
        found.append(1 / (sum(others) / len(others) + 1e-5))
    return found


def test_typicality_is_the_inverse_mean_distance_to_the_neighbours() -> None:
    vectors, _ = planted(0)
    assert typicality(vectors, 7) == pytest.approx(slow_typicality(vectors, 7), rel=1e-3)
    assert typicality(vectors[:5], 20) == pytest.approx(slow_typicality(vectors[:5], 4), rel=1e-3)
    assert typicality(vectors[:1]).tolist() == [1.0]


@pytest.mark.parametrize("seed", range(5))
def test_every_group_is_labelled_once_largest_first_at_its_most_typical_image(seed: int) -> None:
    vectors, owner = planted(seed)
    chosen = typical_first(vectors, count=len(SIZES))
    assert owner[chosen].tolist() == [0, 1, 2, 3]
    for group, row in enumerate(chosen):
        rows = np.flatnonzero(owner == group)
        best = rows[np.argmax(slow_typicality(vectors[rows], min(NEIGHBOURS, len(rows) // 2)))]
        assert row == best


def test_asked_one_by_one_the_groups_without_label_come_first() -> None:
    vectors, owner = planted(1)
    chosen = [int(np.flatnonzero(owner == 2)[0]), int(np.flatnonzero(owner == 0)[0])]
    for _ in range(2):
        chosen += typical_first(vectors, chosen)
    assert owner[chosen].tolist() == [2, 0, 1, 3]


def test_outliers_come_after_every_group_and_last_of_all() -> None:
    vectors, _ = planted(2)
    outliers = np.full((2, 8), 5.0, dtype=np.float32) * np.array([[1], [-1]], dtype=np.float32)
    together = np.concatenate([outliers, vectors])
    chosen = typical_first(together, count=6)
    assert not {0, 1} & set(chosen[:4])


def test_typical_first_chooses_only_candidates_and_never_twice() -> None:
    vectors, _ = planted(3)
    allowed = [3, 50, 51, 99]
    chosen = typical_first(vectors, [51], 10, candidates=allowed)
    assert sorted(chosen) == [3, 50, 99]
    everything = typical_first(vectors[:25], count=100)
    assert sorted(everything) == list(range(25))
    assert typical_first(vectors, range(100)) == []


def test_the_same_seed_chooses_the_same_images() -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    assert typical_first(vectors, [4, 7], 5, seed=3) == typical_first(vectors, [4, 7], 5, seed=3)


def test_equal_images_are_chosen_too() -> None:
    vectors = np.ones((6, 3), dtype=np.float32)
    assert sorted(typical_first(vectors, count=6)) == list(range(6))
    assert sorted(spread(vectors, count=6)) == list(range(6))
    assert density(vectors).tolist() == [1.0] * 6


def slow_spread(vectors: np.ndarray, labelled: list[int], count: int) -> list[int]:
    """k-centre greedy, pair by pair."""
    chosen: list[int] = []
    for _ in range(count):
        free = [row for row in range(len(vectors)) if row not in (*labelled, *chosen)]
        chosen.append(
            max(free, key=lambda row: min(math.dist(vectors[row], vectors[one]) for one in (*labelled, *chosen)))
        )
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_spread_is_k_centre_greedy(seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((30, 4)).astype(np.float32)
    assert spread(vectors, [3, 8], 6) == slow_spread(vectors, [3, 8], 6)
    first = spread(vectors, count=4)
    central = min(range(30), key=lambda row: math.dist(vectors[row], vectors.mean(axis=0)))
    assert first == [central, *slow_spread(vectors, [central], 3)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_spread_is_at_most_twice_as_far_as_the_best_of_all_subsets(seed: int, count: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((9, 2)).astype(np.float32)
    distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)

    def radius(rows: tuple[int, ...] | list[int]) -> float:
        return float(distance[:, list(rows)].min(axis=1).max())

    best = min(radius(rows) for rows in itertools.combinations(range(9), count))
    assert radius(spread(vectors, count=count)) <= 2 * best + 1e-5


def test_density_is_the_mean_gaussian_similarity() -> None:
    vectors = np.concatenate([planted(0, (30, 12))[0], np.full((1, 8), 3, dtype=np.float32)])
    far = [sorted(math.dist(one, other) for other in vectors)[NEIGHBOURS] for one in vectors]
    width = float(np.median(far))
    expected = [np.mean([math.exp(-(math.dist(a, b) ** 2) / (2 * width**2)) for b in vectors]) for a in vectors]
    found = density(vectors)
    assert found == pytest.approx(expected, rel=1e-2)
    assert found[-1] == found.min()
    assert found[:30].min() > found[30:].max()


def test_density_of_many_images_stands_on_some_of_them() -> None:
    vectors, owner = planted(0, (2400, 800))
    found = density(vectors)
    assert found[owner == 0].mean() / found[owner == 1].mean() == pytest.approx(3, rel=0.1)


def test_information_density_is_the_product() -> None:
    found = dense_and_uncertain(np.array([0.2, 0.4]), np.array([0.9, 0.5]), beta=2)
    assert found == pytest.approx([0.2 * 0.81, 0.4 * 0.25])
    assert dense_and_uncertain(np.array([0.2, 0.4]), np.array([0.9, 0.5]), beta=0).tolist() == [0.2, 0.4]


def test_similar_first_orders_by_cosine_to_the_nearest_given_image() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((20, 5)))
    candidates = [1, 5, 6, 11, 19]
    found, similarity = similar_first(vectors, [0, 2], candidates)
    slow = {row: max(float(vectors[row] @ vectors[one]) for one in (0, 2)) for row in candidates}
    assert found == sorted(candidates, key=lambda row: -slow[row])
    assert similarity == pytest.approx([slow[row] for row in found], rel=1e-5)


def test_unit_takes_away_what_all_share() -> None:
    rng = np.random.default_rng(0)
    shared = 100 + rng.standard_normal((50, 4))
    found = unit(shared)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(50))
    assert abs(found.mean()) < 0.2
    with pytest.raises(DataError, match="no table of finite numbers"):
        unit(np.array([[1.0, np.nan]]))
