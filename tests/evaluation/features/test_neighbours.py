"""Neighbours of other patients by brute force, and their classes by hand."""

import numpy as np
import pytest

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features import neighbours as module
from monai_ssl_transfer.evaluation.features.grouped import drawn_ratios, measured
from monai_ssl_transfer.evaluation.features.neighbours import nearest_of_others, same_class_share


def test_neighbours_are_those_of_brute_force_without_the_own_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 7)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(30, 5))
    groups = [f"p{number}" for number in generator.integers(0, 6, 30)]
    found, cosines = nearest_of_others(vectors, groups, 4)
    for i in range(30):
        others = [j for j in range(30) if groups[j] != groups[i]]
        value = {j: vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j]) for j in others}
        wanted = sorted(others, key=lambda j: -value[j])[:4]
        assert found[i].tolist() == wanted
        assert np.allclose(cosines[i], [value[j] for j in wanted])


def test_places_that_cannot_be_filled_stay_empty() -> None:
    found, cosines = nearest_of_others(np.eye(3) + 0.1, ["a", "a", "b"], 2)
    assert found[0].tolist() == [2, -1] and np.isnan(cosines[0, 1])
    assert set(found[2]) == {0, 1}
    with pytest.raises(DataError, match="two patients"):
        nearest_of_others(np.eye(3), ["a"] * 3, 2)


def test_share_of_the_same_class_and_chance_by_hand() -> None:
    labels, groups = ["x", "x", "y", "y"], ["a", "b", "b", "c"]
    near = np.array([[1, 3], [0, 3], [3, 0], [2, -1]])
    share, chance = same_class_share(near, labels, groups)
    assert share.value == pytest.approx((1 + 1 + 1 + 1) / 7)
    # others of the image's class: 1 of 3, 1 of 2, 1 of 2, 1 of 3
    assert chance == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 1 / 3) / 4)
    assert share.low <= share.value <= share.high


def test_ratios_are_drawn_by_whole_patients() -> None:
    ratios = drawn_ratios(np.array([1.0, 1, 0, 0]), np.ones(4), ["a", "a", "b", "b"], draws=4000)
    assert ratios[0] == 0.5
    values, counts = np.unique(ratios[1:], return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert np.allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)
    assert (measured(ratios, 2).low, measured(ratios, 2).high) == (0, 1)
    assert np.isnan(measured(ratios, 1).low)
