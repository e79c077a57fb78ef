from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.transferability.h_score import h_score
from monai_ssl_transfer.evaluation.transferability.logme import logme


def _cases(count: int, width: int, signal: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    vectors = torch.randn(count, width, generator=generator) + signal * torch.eye(3, width)[targets] + 0.3
    return vectors, targets


@pytest.mark.parametrize(("count", "width"), [(40, 6), (20, 50)])
def test_logme_is_the_maximum_of_the_marginal_density(count: int, width: int) -> None:
    vectors, targets = _cases(count, width)
    features = vectors.double().numpy()
    found = []
    for one in range(3):
        column = (targets.numpy() == one).astype(float)

        def loss(logs: np.ndarray, column: np.ndarray = column) -> float:
            covariance = np.eye(count) / np.exp(logs[1]) + features @ features.T / np.exp(logs[0])
            return -float(multivariate_normal.logpdf(column, np.zeros(count), covariance)) / count

        starts = [minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6}) for start in ([1, 1], [3, 3])]
        found.append(-min(one.fun for one in starts))
    assert logme(vectors, targets) == pytest.approx(np.mean(found), abs=1e-6)


def test_logme_equals_the_authors_fixed_point_where_cases_outnumber_dimensions() -> None:
    """The loop of `_fit_fixed_point` of github.com/thuml/LogME, run on until it stands still."""
    vectors, targets = _cases(120, 8)
    features, evidences = vectors.double().numpy(), []
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    sigma = singular**2
    for one in range(3):
        column = (targets.numpy() == one).astype(float)
        x2 = (left.T @ column) ** 2
        rest = (column**2).sum() - x2.sum()
        alpha, beta = 1.0, 1.0
        for _ in range(500):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            m2 = (sigma * x2 / (t + sigma) ** 2).sum()
            misfit = (x2 / (1 + sigma / t) ** 2).sum() + rest
            alpha, beta = gamma / m2, (120 - gamma) / misfit
        evidence = 4 * np.log(alpha) + 60 * np.log(beta) - 0.5 * np.log(alpha + beta * sigma).sum()
        evidences.append((evidence - beta / 2 * misfit - alpha / 2 * m2 - 60 * np.log(2 * np.pi)) / 120)
    assert logme(vectors, targets) == pytest.approx(np.mean(evidences), abs=1e-9)


@pytest.mark.parametrize("shrunk", [False, True])
def test_h_score_equals_its_definition(shrunk: bool) -> None:
    vectors, targets = _cases(90, 5)
    features = vectors.double().numpy()
    means = np.stack([features[targets.numpy() == one].mean(0) for one in targets.tolist()])
    between = np.cov(means, rowvar=False)
    estimate = LedoitWolf().fit(features)
    expected = np.trace(np.linalg.inv(np.cov(features, rowvar=False)) @ between)
    if shrunk:
        expected = (1 - estimate.shrinkage_) * np.trace(np.linalg.inv(estimate.covariance_) @ between)
    assert h_score(vectors, targets, shrunk) == pytest.approx(expected, rel=1e-9)
    if not shrunk:  # which no invertible linear map of the embeddings changes
        mixed = vectors.double() @ torch.randn(5, 5, generator=torch.Generator().manual_seed(1)).double()
        assert h_score(mixed, targets, False) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("score", [logme, h_score])
def test_better_embeddings_score_higher(score) -> None:  # type: ignore[no-untyped-def]
    for width in (8, 200):
        found = [score(*_cases(90, width, signal)) for signal in (0.0, 1.0, 3.0)]
        assert found == sorted(found) and found[0] < found[2]
    vectors, targets = _cases(60, 8)
    with_gap = torch.where(targets == 2, 7, targets)  # a class that no case has does not count
    assert score(vectors, with_gap) == pytest.approx(score(vectors, targets))


def test_findings_and_what_cannot_be_scored() -> None:
    vectors, targets = _cases(60, 8)
    one_hot = torch.nn.functional.one_hot(targets, 3).float()
    always = torch.cat([one_hot, torch.ones(60, 1)], dim=1)
    assert logme(vectors, always) == pytest.approx(logme(vectors, targets))
    singles = [h_score(vectors, (targets == one).long()) for one in range(3)]
    assert h_score(vectors, always) == pytest.approx(np.mean(singles))
    with pytest.raises(DataError, match="all have the same target"):
        logme(vectors, targets * 0)
    with pytest.raises(DataError, match="one target each"):
        h_score(vectors, targets[:5])
