"""What both scores take: embeddings and targets as arrays of double precision, checked."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from monai_ssl_transfer.errors import DataError


def embeddings_and_columns(vectors: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Bring embeddings and targets into the form that the scores work on.

    Args:
        vectors: (N, D) embeddings.
        targets: (N,) int64 classes, or (N, C) of 0 and 1 where a case may have several findings.

    Returns:
        (N, D) float64, and (N, C) float64 of 0 and 1: a column per class, or finding, that some cases have and others
        do not; the rest says nothing about the embeddings.

    Raises:
        DataError: lengths disagree, or no class tells cases apart.
    """
    if len(vectors) != len(targets):
        raise DataError(f"There are {len(vectors)} embeddings and {len(targets)} targets: give one target each.")
    values = targets.detach().cpu().numpy()
    columns = values.astype(np.float64) if values.ndim == 2 else (values[:, None] == np.unique(values)).astype(float)
    columns = columns[:, (columns.min(axis=0) < columns.max(axis=0))] if len(columns) else columns[:, :0]
    if columns.shape[1] == 0:
        raise DataError("The cases all have the same target: a score of embeddings needs two classes or more.")
    return vectors.detach().cpu().double().numpy(), columns
