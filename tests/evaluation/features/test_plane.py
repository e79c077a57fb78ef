"""Features in a plane: PCA against the eigenvectors, neighbourhood methods against what they promise."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.plane import plane


def two_clusters(count: int = 30, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = np.repeat([0, 1], count)
    directions = generator.normal(size=(2, width)) * 5
    return directions[labels] + generator.normal(size=(2 * count, width)), labels


def test_pca_gives_the_projection_on_the_first_two_eigenvectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 6)) * [9, 4, 1, 1, 1, 1] + 5
    centred = vectors - vectors.mean(0)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :2]
    found, wanted = plane(vectors, "PCA"), centred @ directions
    signs = np.sign((found * wanted).sum(0))
    assert np.allclose(found * signs, wanted, atol=1e-4)


def test_tsne_puts_images_beside_those_of_their_own_cluster_and_the_seed_decides() -> None:
    vectors, labels = two_clusters()
    points = plane(vectors, "tsne", seed=1)
    assert points.shape == (60, 2)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag([np.inf] * 60)
    assert (labels[distances.argmin(1)] == labels).all()
    assert np.array_equal(points, plane(vectors, "t-SNE", seed=1))


def test_umap_gets_the_directions_of_the_features_and_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    class Stand:  # the real one compiles itself for half a minute
        def __init__(self, **settings: object) -> None:
            asked.update(settings)

        def fit_transform(self, rows: np.ndarray) -> np.ndarray:
            asked["rows"] = rows
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Stand))
    vectors, _ = two_clusters(count=10)
    found = plane(vectors * np.arange(1, 21)[:, None], "UMAP", seed=7)
    assert found.shape == (20, 2)
    assert asked["random_state"] == 7 and asked["n_neighbors"] == 15 and asked["init"] == "spectral"
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.asarray(asked["rows"])
    cosines = 1 - ((rows[:, None] - rows[None]) ** 2).sum(2) / 2
    assert np.allclose(cosines, unit @ unit.T, atol=1e-6)


def test_one_direction_gives_a_line() -> None:
    points = plane(np.arange(5.0)[:, None])
    assert np.allclose(points[:, 1], 0) and np.allclose(np.abs(np.diff(points[:, 0])), 1)


@pytest.mark.parametrize(
    ("vectors", "method", "says"),
    [
        (np.zeros((9, 2)), "MDS", "choose one of PCA, t-SNE, UMAP"),
        (np.zeros((3, 2)), "t-SNE", "at least 4 images"),
        (np.full((9, 2), np.nan), "PCA", "not finite"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(vectors: np.ndarray, method: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        plane(vectors, method)


def test_umap_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(DataError, match=r"pip install 'monai-ssl-transfer\[study\]'"):
        plane(np.eye(6), "UMAP")
