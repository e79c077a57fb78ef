"""Images that an encoder finds alike although a split or two data sets keep them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from monai_ssl_transfer.data.audit.findings import Finding, finding
from monai_ssl_transfer.data.audit.records import Record, apart, both_sides, photographs_of, scans_of

LEAST_SIMILARITY = 0.97
SPREAD = 6.0
"""Robust standard deviations above the usual similarity to the nearest stranger at which a pair is reported."""
_FEWEST = 8


def similar_images(records: Sequence[Record], embed: Callable[[Sequence[Record]], Any]) -> Iterator[Finding]:
    """The nearest pairs across parts or sets that stand out from the other nearest pairs.

    Args:
        records: of both sets.
        embed: gives (N, D) embeddings.
    """
    able = [one for one, _ in scans_of(records)] + [one for one, _ in photographs_of(records)]
    both_sets = len({one.other for one in able}) == 2
    both_parts = len({one.part for one in able if not one.other} - {""}) > 1
    if not (both_sets or both_parts) or len(able) < _FEWEST:
        return
    vectors = np.asarray(embed(able), dtype=np.float32)
    # what all images share says nothing about two of them
    vectors = vectors - vectors.mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    nearest = [_nearest_apart(number, able, vectors) for number in range(len(able))]
    usual = np.array([similarity for similarity, _ in nearest if similarity > -1])
    if not len(usual):
        return
    middle = float(np.median(usual))
    spread = 1.4826 * float(np.median(np.abs(usual - middle)))
    limit = max(LEAST_SIMILARITY, min(0.9999, middle + SPREAD * spread))
    told: set[tuple[int, int]] = set()
    for number, (similarity, other) in enumerate(nearest):
        pair = (min(number, other), max(number, other))
        if similarity < limit or pair in told:
            continue
        told.add(pair)
        one, two = able[pair[0]], able[pair[1]]
        yield finding(
            f"similar-in-{apart(one, two)}",
            f"{both_sides(one, two)} have embeddings of cosine {similarity:.3f} (usual nearest: {middle:.3f})",
            [one.shown, two.shown],
            measure=-similarity,
            pictures=[one.picture, two.picture],
        )


def _nearest_apart(number: int, able: Sequence[Record], vectors: np.ndarray) -> tuple[float, int]:
    """Cosine and number of the nearest record that is kept apart from one; -1 where there is none."""
    similarity = vectors @ vectors[number]
    for other in np.argsort(-similarity, kind="stable"):
        if apart(able[number], able[int(other)]):
            return float(similarity[other]), int(other)
    return -1.0, number
