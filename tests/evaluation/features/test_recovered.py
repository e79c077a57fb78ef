"""Ridge probes against scikit-learn's, and what must not be read out."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.recovered import PENALTIES, folds, recover, ridge


def features(images: int = 80, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(images, width)) * np.arange(1, width + 1) + 4


def kept(predicted: np.ndarray, seen: np.ndarray) -> np.ndarray:
    low, high = seen.min(axis=0), seen.max(axis=0)
    return np.clip(predicted, low - (high - low) / 2, high + (high - low) / 2)


@pytest.mark.parametrize("width", [6, 90])
def test_ridge_is_that_of_scikit_learn(width: int) -> None:
    rows = np.concatenate([features(width=width), np.full((80, 1), 3.0)], axis=1)
    wanted = np.stack([rows @ np.arange(width + 1) + np.sin(np.arange(80)), np.cos(np.arange(80))], axis=1)
    found = ridge(rows[:60], wanted[:60], rows[60:], (0.5, 30.0))
    for penalty, predicted in zip((0.5, 30.0), found, strict=True):
        reference = make_pipeline(StandardScaler(), Ridge(penalty)).fit(rows[:60], wanted[:60])
        within = kept(reference.predict(rows[60:]), wanted[:60])
        assert np.allclose(predicted, within)


def test_what_is_linear_in_the_features_is_recovered_and_what_is_not_there_is_not() -> None:
    rows = features()
    groups = [f"p{number // 8}" for number in range(80)]
    there, noise = rows @ [1, 0, 0, 2, 0, 0] - 50, np.random.default_rng(9).normal(size=80)
    found = recover(rows, {"there": there, "noise": noise, "flat": np.full(80, 7.0)}, groups)
    assert found["there"].r2.value > 0.999 and found["there"].r2.low > 0.99
    assert found["noise"].r2.value < 0.1
    assert "flat" not in found  # a constant has no R2
    alone = recover(rows, {"noise": noise}, groups)["noise"]
    assert np.allclose(alone.predicted, found["noise"].predicted)  # each quantity has its own penalty


def test_a_property_of_the_patient_alone_is_not_recovered_from_what_names_the_patient() -> None:
    """Features that tell patients apart and nothing else: split by image the value would be read perfectly."""
    patients = np.repeat(np.arange(12), 6)
    rows = np.eye(12)[patients] * 5
    wanted = np.random.default_rng(4).normal(size=12)[patients]
    assert recover(rows, {"it": wanted}, [f"p{number}" for number in patients])["it"].r2.value < 0.05


def test_predictions_are_those_of_scikit_learn_with_the_penalty_chosen_by_grid_search_over_patients() -> None:
    rows, numbers = features(40), np.repeat(np.arange(8), 5)
    wanted = rows[:, 0] + np.random.default_rng(1).normal(size=40)
    found = recover(rows, {"it": wanted}, [str(number) for number in numbers], seed=3)["it"]
    guessed, predicted = np.empty(40), np.empty(40)
    seen: list[int] = []
    for train, test in folds(numbers, 3):
        assert not set(numbers[train]) & set(numbers[test])
        inner = [(a, b) for a, b in folds(numbers[train], 3)]
        errors = []
        for penalty in PENALTIES:
            parts = []
            for a, b in inner:
                model = make_pipeline(StandardScaler(), Ridge(penalty)).fit(rows[train][a], wanted[train][a])
                within = kept(model.predict(rows[train][b]), wanted[train][a])
                parts.append(((within - wanted[train][b]) ** 2).sum())
            errors.append(sum(parts))
        best = make_pipeline(StandardScaler(), Ridge(PENALTIES[int(np.argmin(errors))]))
        model = best.fit(rows[train], wanted[train])
        predicted[test] = kept(model.predict(rows[test]), wanted[train])
        guessed[test] = wanted[train].mean()
        seen += test.tolist()
    assert sorted(seen) == list(range(40))
    assert np.allclose(found.predicted, predicted)
    error = ((wanted - predicted) ** 2).sum() / ((wanted - guessed) ** 2).sum()
    assert found.r2.value == pytest.approx(1 - error)


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(DataError, match="needs 3 patients, not 2"):
        recover(features(10), {"it": np.arange(10.0)}, ["a", "b"] * 5)
