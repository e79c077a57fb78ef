"""Ranks, alignment, uniformity and separability against hand-made spaces and second implementations."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.separability import separability
from monai_ssl_transfer.evaluation.features.spectrum import effective_rank, explained, rankme
from monai_ssl_transfer.evaluation.features.uniformity import alignment, uniformity


def test_effective_rank_counts_directions_that_are_used_alike() -> None:
    corners = np.concatenate([np.eye(4), -np.eye(4)]) * 5 + 100  # four directions, the same spread along each
    assert effective_rank(corners) == pytest.approx(4)
    assert effective_rank(np.outer(np.arange(6.0), [1, 2, 3])) == pytest.approx(1)
    assert effective_rank(np.ones((5, 3))) == 0


def test_ranks_are_the_entropy_of_the_singular_values() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)) * np.arange(1, 9) + 2
    centred = np.sqrt(np.linalg.eigvalsh(np.cov(vectors.T)))
    assert effective_rank(vectors) == pytest.approx(np.exp(entropy(centred)))
    plain = np.sqrt(np.linalg.eigvalsh(vectors.T @ vectors))
    assert rankme(vectors) == pytest.approx(np.exp(entropy(plain)), rel=1e-4)
    assert rankme(vectors) != pytest.approx(effective_rank(vectors), rel=0.02)


def test_explained_variance_is_that_of_pca() -> None:
    from sklearn.decomposition import PCA

    vectors = np.random.default_rng(1).normal(size=(20, 5)) * [5, 3, 1, 1, 1]
    assert np.allclose(explained(vectors), PCA().fit(vectors).explained_variance_ratio_)


def test_alignment_and_uniformity_are_those_of_the_authors_code() -> None:
    """The functions of appendix A of the paper, with torch.pdist."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(40, 6, generator=random).double(), dim=1) for _ in range(2))
    wanted_alignment = (x - y).norm(dim=1).pow(2).mean()
    wanted_uniformity = torch.pdist(x).pow(2).mul(-2).exp().mean().log()
    assert alignment(3 * x.numpy(), y.numpy()) == pytest.approx(float(wanted_alignment))
    assert uniformity(5 * x.numpy()) == pytest.approx(float(wanted_uniformity))


def test_alignment_and_uniformity_by_hand() -> None:
    right, up = np.array([[1.0, 0]]), np.array([[0.0, 1]])
    assert alignment(right, right * 9) == pytest.approx(0)
    assert alignment(right, up) == pytest.approx(2)
    assert uniformity(np.concatenate([right, up])) == pytest.approx(-4)  # one pair, distance squared 2, t 2
    assert uniformity(np.concatenate([right, right])) == pytest.approx(0)


def test_uniformity_over_several_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_ssl_transfer.evaluation.features import uniformity as module

    vectors = np.random.default_rng(2).normal(size=(25, 4))
    whole = uniformity(vectors)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert uniformity(vectors) == pytest.approx(whole)


def test_separability_by_hand() -> None:
    """Two classes on the unit circle: 0 and 20 degrees, 90 and 110 degrees."""
    angles = np.deg2rad([0, 20, 90, 110])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [2], [3], [4]]
    found = separability(vectors, ["a", "a", "b", "b"])
    near = 1 - np.cos(np.deg2rad(20))
    other = [1 - (np.cos(np.deg2rad(90)) + np.cos(np.deg2rad(110))) / 2]
    other.append(1 - (np.cos(np.deg2rad(70)) + np.cos(np.deg2rad(90))) / 2)
    assert found.silhouette == pytest.approx(np.mean([1 - near / one for one in (*other, *other[::-1])]))
    length = np.cos(np.deg2rad(10))  # of a class's mean; each image is sin(10 degrees) away from it
    within = np.sin(np.deg2rad(10))
    apart = length * np.sqrt(2)
    assert found.class_distance == pytest.approx(apart / within)
    assert found.fisher_ratio == pytest.approx((apart / 2) ** 2 / within**2)


def test_what_has_no_classes_or_too_few_images_is_refused() -> None:
    with pytest.raises(DataError, match="two classes"):
        separability(np.eye(3), ["a", "a", "a"])
    with pytest.raises(DataError, match="more images than classes"):
        separability(np.eye(3), ["a", "b", "c"])
    with pytest.raises(DataError, match="at least 2 images"):
        effective_rank(np.ones((1, 3)))
    with pytest.raises(DataError, match="at least 2 images"):
        uniformity(np.ones((1, 3)))
    with pytest.raises(DataError, match="two views"):
        alignment(np.eye(3), np.eye(2))
