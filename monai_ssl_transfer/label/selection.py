"""Which images to label next, from embeddings alone: the most typical, the best spread, the densest, the most similar.

Nothing here knows of MONAI Label: vectors go in, row numbers come out, the same ones every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

from monai_ssl_transfer.errors import DataError

NEIGHBOURS = 20
"""Of the typicality (Hacohen et al. 2022, section 3.2) and of the density's width."""
MOST_CLUSTERS = 500
SMALLEST_CLUSTER = 5
"""Images; smaller clusters are outliers and come last (both as in the authors' code)."""
_FEW_CLUSTERS = 50
_RESTARTS = 4
_LARGE = 5000
_LANDMARKS = 2000
_BLOCK = 1024


def unit(vectors: np.ndarray) -> np.ndarray:
    """Centre the vectors and bring each to length 1.

    Embeddings of one encoder share most of their direction; without that part they differ by what their images show.

    Args:
        vectors: (N, D).

    Returns:
        (N, D) float32; a vector that equals the mean stays 0.

    Raises:
        DataError: not a table of finite numbers.
    """
    values = np.asarray(vectors, dtype=np.float32)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"embeddings of shape {values.shape} are no table of finite numbers: embed the images again.")
    values = values - values.mean(axis=0, keepdims=True) if len(values) > 1 else values
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def squared_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) squared Euclidean distances between (N, D) and (M, D)."""
    found = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * rows @ others.T
    return np.maximum(found, 0)


def typicality(vectors: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Inverse of the mean distance to the nearest neighbours (Hacohen et al. 2022, equation 1).

    Args:
        vectors: (N, D) of one cluster.
        neighbours: how many; at most all others.

    Returns:
        (N,); a single vector has typicality 1.
    """
    count = min(neighbours, len(vectors) - 1)
    if count < 1:
        return np.ones(len(vectors))
    return 1 / (_neighbour_distances(vectors, vectors, count).mean(axis=1) + 1e-5)


def typical_first(
    vectors: np.ndarray,
    labelled: Sequence[int] = (),
    count: int = 1,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
) -> list[int]:
    """TypiClust: the most typical image of each of the largest clusters that nobody has labelled in.

    The vectors are divided by k-means into one cluster per label there is and per label wanted, so that at least as
    many clusters as are wanted hold no label (Hacohen, Dekel and Weinshall 2022, algorithm 1; arXiv 2202.02794).

    Args:
        vectors: (N, D), see `unit`.
        labelled: rows that are labelled or being labelled.
        count: rows wanted.
        seed: of k-means.
        candidates: rows that may be chosen; None: all that are not labelled.

    Returns:
        Up to ``count`` rows, in the order in which to label them.
    """
    free = _free(len(vectors), labelled, candidates)
    wanted = min(count, int(free.sum()))
    if wanted == 0:
        return []
    taken = np.zeros(len(vectors), dtype=bool)
    taken[list(labelled)] = True
    clusters = _clusters(vectors, min(int(taken.sum()) + wanted, MOST_CLUSTERS, len(vectors)), seed)
    chosen: list[int] = []
    while len(chosen) < wanted:
        own = _next_cluster(clusters, taken, free)
        rows = np.flatnonzero((clusters == own) & ~taken)
        order = rows[np.argsort(-typicality(vectors[rows], min(NEIGHBOURS, max(len(rows) // 2, 1))), kind="stable")]
        best = int(order[free[order]][0])
        chosen.append(best)
        taken[best], free[best] = True, False
    return chosen


def spread(
    vectors: np.ndarray, labelled: Sequence[int] = (), count: int = 1, candidates: Sequence[int] | None = None
) -> list[int]:
    """Coreset by k-centre greedy: always the image that is farthest from everything labelled.

    The largest distance of any image to its nearest label is at most twice the smallest possible one (Sener and
    Savarese 2018, algorithm 1; arXiv 1708.00489). Where nothing is labelled, it begins with the image nearest to the
    mean.

    Args:
        vectors: (N, D), see `unit`.
        labelled: rows that are labelled or being labelled.
        count: rows wanted.
        candidates: rows that may be chosen; None: all that are not labelled.

    Returns:
        Up to ``count`` rows, in the order in which to label them.
    """
    free = _free(len(vectors), labelled, candidates)
    wanted = min(count, int(free.sum()))
    nearest = np.full(len(vectors), np.inf, dtype=np.float32)
    for start in range(0, len(labelled), _BLOCK):
        known = vectors[list(labelled[start : start + _BLOCK])]
        nearest = np.minimum(nearest, squared_distances(vectors, known).min(axis=1))
    if not len(labelled):
        nearest = -squared_distances(vectors, vectors.mean(axis=0, keepdims=True))[:, 0]
    chosen: list[int] = []
    while len(chosen) < wanted:
        best = int(np.argmax(np.where(free, nearest, -np.inf)))
        free[best] = False
        own = squared_distances(vectors, vectors[best : best + 1])[:, 0]
        nearest = np.minimum(nearest, own) if chosen or len(labelled) else own
        chosen.append(best)
    return chosen


def density(vectors: np.ndarray) -> np.ndarray:
    """How many images look like each one: its mean similarity to all (Settles and Craven 2008, section 3.4).

    The similarity is a Gaussian of the distance, as wide as the median distance to the 20th neighbour. Of more than
    2,000 images, 2,000 evenly spaced ones stand for all.

    Args:
        vectors: (N, D), see `unit`.

    Returns:
        (N,) from 0 to 1.
    """
    count = min(NEIGHBOURS, len(vectors) - 1)
    if count < 1:
        return np.ones(len(vectors))
    places = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), _LANDMARKS)).round().astype(int))
    marks = vectors[places]
    width = float(np.median(_neighbour_distances(marks, marks, min(count, len(marks) - 1))[:, -1])) or 1.0
    parts = [np.exp(-squared_distances(part, marks) / (2 * width**2)).mean(axis=1) for part in _blocks(vectors)]
    return np.concatenate(parts)


def dense_and_uncertain(uncertainty: np.ndarray, crowding: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """Information density: uncertainty times density to the power of beta (Settles and Craven 2008, equation 13).

    Args:
        uncertainty: (N,), not negative.
        crowding: (N,) of `density`.
        beta: 0: uncertainty alone.

    Returns:
        (N,), the larger the sooner to be labelled.
    """
    return np.asarray(uncertainty) * np.asarray(crowding) ** beta


def similar_first(vectors: np.ndarray, like: Sequence[int], candidates: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """The candidates by their largest cosine similarity to one of some images.

    Args:
        vectors: (N, D), see `unit`.
        like: rows to look like.
        candidates: rows to order.

    Returns:
        The candidates, most similar first, and (len(candidates),) similarities in that order.
    """
    found = (vectors[list(candidates)] @ vectors[list(like)].T).max(axis=1)
    order = np.argsort(-found, kind="stable")
    return [int(candidates[place]) for place in order], found[order]


def _free(rows: int, labelled: Sequence[int], candidates: Sequence[int] | None) -> np.ndarray:
    free = np.zeros(rows, dtype=bool)
    free[slice(None) if candidates is None else list(candidates)] = True
    free[list(labelled)] = False
    return free


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    return (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))


def _neighbour_distances(rows: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """(N, count) distances to the nearest others, rising, without the nearest of all, which is the row itself."""
    parts = []
    for start, part in zip(range(0, len(rows), _BLOCK), _blocks(rows), strict=True):
        found = squared_distances(part, others)
        found[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf  # others are the rows themselves
        parts.append(np.sort(np.partition(found, count - 1, axis=1)[:, :count], axis=1))
    return np.sqrt(np.concatenate(parts))


def _clusters(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(N,) cluster numbers; mini-batches where there are many clusters (as in the authors' code) or many images."""
    if count <= 1:
        return np.zeros(len(vectors), dtype=int)
    count = min(count, len(np.unique(vectors, axis=0)))
    if count <= _FEW_CLUSTERS and len(vectors) <= _LARGE:
        return KMeans(count, n_init=_RESTARTS, random_state=seed).fit_predict(vectors)
    return MiniBatchKMeans(count, n_init=1, batch_size=1024, max_iter=20, random_state=seed).fit_predict(vectors)


def _next_cluster(clusters: np.ndarray, taken: np.ndarray, free: np.ndarray) -> int:
    """With fewest labels, then largest, among those that have a free row; outliers last."""
    sizes = np.bincount(clusters)
    labels = np.bincount(clusters[taken], minlength=len(sizes))
    available = np.bincount(clusters[free], minlength=len(sizes)) > 0
    order = sorted(np.flatnonzero(available), key=lambda one: (sizes[one] < SMALLEST_CLUSTER, labels[one], -sizes[one]))
    return int(order[0])
