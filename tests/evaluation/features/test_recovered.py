"""Ridge probes against scikit-learn's, and what must not be read out."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.recovered import folds, recover, ridge


def features(images: int = 80, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(images, width)) * np.arange(1, width + 1) + 4


def test_ridge_is_that_of_scikit_learn() -> None:
    rows = np.concatenate([features(), np.full((80, 1), 3.0)], axis=1)
    wanted = rows @ np.arange(7) + np.sin(np.arange(80))
    found = ridge(rows[:60], wanted[:60], rows[60:], (0.5, 30.0))
    for penalty, predicted in zip((0.5, 30.0), found, strict=True):
        reference = make_pipeline(StandardScaler(), Ridge(penalty)).fit(rows[:60], wanted[:60])
        assert np.allclose(predicted, reference.predict(rows[60:]))


def test_what_is_linear_in_the_features_is_recovered_and_what_is_not_there_is_not() -> None:
    rows = features()
    groups = [f"p{number // 8}" for number in range(80)]
    found = recover(rows, rows @ [1, 0, 0, 2, 0, 0] - 50, groups)
    assert found is not None and found.r2.value > 0.999 and found.r2.low > 0.99
    other = recover(rows, np.random.default_rng(9).normal(size=80), groups)
    assert other is not None and other.r2.value < 0.1


def test_a_property_of_the_patient_alone_is_not_recovered_from_what_names_the_patient() -> None:
    """Features that tell patients apart and nothing else: split by image the value would be read perfectly."""
    patients = np.repeat(np.arange(12), 6)
    rows = np.eye(12)[patients] * 5
    wanted = np.random.default_rng(4).normal(size=12)[patients]
    found = recover(rows, wanted, [f"p{number}" for number in patients])
    assert found is not None and found.r2.value < 0.05


def test_r2_is_against_the_mean_of_the_training_patients_and_every_image_is_predicted_once() -> None:
    rows, numbers = features(40), np.repeat(np.arange(8), 5)
    wanted = rows[:, 0] + np.random.default_rng(1).normal(size=40)
    found = recover(rows, wanted, [str(number) for number in numbers], seed=3)
    assert found is not None
    guessed = np.empty(40)
    seen: list[int] = []
    for train, test in folds(numbers, 3):
        assert not set(numbers[train]) & set(numbers[test])
        guessed[test] = wanted[train].mean()
        seen += test.tolist()
    assert sorted(seen) == list(range(40))
    error = ((wanted - found.predicted) ** 2).sum() / ((wanted - guessed) ** 2).sum()
    assert found.r2.value == pytest.approx(1 - error)


def test_too_few_patients_are_refused_and_a_constant_has_no_r2() -> None:
    with pytest.raises(DataError, match="needs 3 patients, not 2"):
        recover(features(10), np.arange(10.0), ["a", "b"] * 5)
    assert recover(features(12), np.full(12, 7.0), [str(number // 2) for number in range(12)]) is None
