"""One embedding per CT volume: the mean over its slices, air and all, so that nothing is left out silently."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.engines.embedding.rows import ImageRows

VOLUME_FIELDS = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("series", pa.string(), nullable=False),
    pa.field("slices", pa.int32(), nullable=False),
    pa.field("group", pa.string(), nullable=False),
    pa.field("body_part", pa.string()),
    pa.field("store_row", pa.int64(), nullable=False),
)


class VolumeMeans:
    """Averages embeddings that come slice by slice in the order of the store.

    Args:
        rows: of the slices.
    """

    fields = VOLUME_FIELDS

    def __init__(self, rows: ImageRows) -> None:
        self._rows = rows
        self._store = rows.store
        self._series = -1
        self._sum = np.zeros(0)

    def add(self, numbers: np.ndarray, vectors: np.ndarray) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Take some slices and give the volumes that are complete by now.

        Args:
            numbers: (B,) of the slices in the store, each the one after the one before.
            vectors: (B, D).

        Returns:
            Columns, and (V, D) means.
        """
        done: list[tuple[int, np.ndarray]] = []
        for number, vector in zip(numbers.tolist(), vectors, strict=True):
            series = int(self._store.index[number]["series"])
            if series != self._series:
                self._series, self._sum = series, np.zeros(len(vector))
            self._sum = self._sum + vector
            own = self._store.series_range(series)
            if number == own.stop - 1:
                done.append((series, self._sum / len(own)))
        columns = self._columns(series for series, _ in done)
        means = np.stack([mean for _, mean in done]) if done else np.empty((0, vectors.shape[1]))
        return columns, means.astype(np.float32)

    def _columns(self, series: Iterable[int]) -> dict[str, list[Any]]:
        rows = [self._row(number) for number in series]
        return {field.name: [row[field.name] for row in rows] for field in self.fields}

    def _row(self, series: int) -> dict[str, Any]:
        own = self._store.series_range(series)
        parts = {int(part) for part in self._store.index["body_part"][own.start : own.stop]}
        part = BodyPart(parts.pop()) if len(parts) == 1 else BodyPart.UNKNOWN
        name = self._rows.series_name(series)
        return {
            "id": name,
            "series": name,
            "slices": len(own),
            "group": self._rows.entry(series).patient_key,
            "body_part": None if part is BodyPart.UNKNOWN else part.name.lower(),
            "store_row": own.start,
        }
