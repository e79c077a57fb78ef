"""Features as points of a plane, to be looked at: PCA, t-SNE, UMAP."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np

from monai_ssl_transfer.errors import DataError

METHODS = ("PCA", "t-SNE", "UMAP")
FEWEST = {"PCA": 2, "t-SNE": 4, "UMAP": 4}
_FIRST_COMPONENTS = 50
_NO_UMAP = "UMAP needs one more package: pip install 'monai-ssl-transfer[study]'."


def plane(vectors: np.ndarray, method: str = "PCA", seed: int = 0) -> np.ndarray:
    """Lay features out in a plane.

    PCA keeps distances as far as two directions can. t-SNE (van der Maaten and Hinton 2008) and UMAP (McInnes et al.
    2018) keep neighbourhoods: distances between their clusters and the clusters' sizes say nothing. Both start from
    the first 50 principal components of the features scaled to length 1, whose nearness is that of the cosine.

    Args:
        vectors: (N, D), a row per image.
        method: "PCA", "t-SNE" or "UMAP", in any spelling of small and capital letters.
        seed: of t-SNE's and UMAP's optimisation; the same seed gives the same plane.

    Returns:
        (N, 2) float32.

    Raises:
        DataError: for an unknown method, too few rows, numbers that are not finite, or UMAP where it is not installed.
    """
    name = plane_name(method)
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < FEWEST[name]:
        raise DataError(f"{name} needs at least {FEWEST[name]} images and got {len(rows)}: give more images.")
    if not np.isfinite(rows).all():
        raise DataError("Some features are not finite numbers: the encoder or an image is damaged.")
    if name == "PCA":
        return _principal(rows, 2).astype(np.float32)
    near = _principal(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), _FIRST_COMPONENTS)
    return (_tsne(near, seed) if name == "t-SNE" else _umap(near, seed)).astype(np.float32)


def plane_name(method: str) -> str:
    """The name in `METHODS` of a method in any spelling.

    Raises:
        DataError: for an unknown method, or UMAP where it is not installed.
    """
    known = {name.lower().replace("-", ""): name for name in METHODS}
    name = known.get(method.lower().replace("-", ""))
    if name is None:
        raise DataError(f"There is no plane {method!r}: choose one of {', '.join(METHODS)}.")
    if name == "UMAP" and "umap" not in sys.modules and find_spec("umap") is None:
        raise DataError(_NO_UMAP)
    return name


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    """(N, count or as many as there are, at least 2) coordinates along the principal components."""
    from sklearn.decomposition import PCA

    kept = min(count, *rows.shape)
    # The full decomposition has no random start; the randomised one is for tables that would take minutes.
    solver = "full" if min(rows.shape) <= 2048 else "randomized"
    found = PCA(kept, svd_solver=solver, random_state=0).fit_transform(rows)
    return np.pad(found, ((0, 0), (0, max(0, 2 - kept))))


def _tsne(rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    # 30 neighbours as van der Maaten's default; it has to be below a third of the images to mean anything.
    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    return TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(rows)


def _umap(rows: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError as error:
        raise DataError(_NO_UMAP) from error
    import warnings

    with warnings.catch_warnings():
        # UMAP says that a seed makes it use one core, and that a spectral start of few points is not defined.
        warnings.simplefilter("ignore")
        few = len(rows) <= 15
        made = UMAP(n_neighbors=min(15, len(rows) - 1), random_state=seed, init="random" if few else "spectral")
        return np.asarray(made.fit_transform(rows))
