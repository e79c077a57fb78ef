"""What stands beside an embedding in the table: where its image is from, as far as files and store tell."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.data.folder_store import StoredImages
from monai_ssl_transfer.data.image_names import ImageNames
from monai_ssl_transfer.data.store import SeriesEntry

CLASSES_FILE = "classes.json"
SLICE_FIELDS = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("series", pa.string(), nullable=False),
    pa.field("file", pa.string()),
    pa.field("slice", pa.int32(), nullable=False),
    pa.field("position_mm", pa.float32(), nullable=False),
    pa.field("group", pa.string(), nullable=False),
    pa.field("body_part", pa.string()),
    pa.field("label", pa.string()),
    pa.field("store_row", pa.int64(), nullable=False),
)
FRAME_FIELDS = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("file", pa.string()),
    pa.field("frame", pa.int32()),
    pa.field("seconds", pa.float32()),
    pa.field("group", pa.string(), nullable=False),
    pa.field("label", pa.string()),
    pa.field("store_row", pa.int64(), nullable=False),
)


class ImageRows:
    """Columns of the images of a store, some rows at a time.

    Args:
        images: their store and, if it was made from a folder, that folder.
        every: of a video, each so-many-th frame was taken.
    """

    def __init__(self, images: StoredImages, every: int = 25) -> None:
        self.store = images.store
        self.names = ImageNames(images, every)
        self.fields = FRAME_FIELDS if self.store.pixels == "rgb" else SLICE_FIELDS
        classes = self.store.path / CLASSES_FILE
        self.classes: list[str] = json.loads(classes.read_text(encoding="utf-8")) if classes.exists() else []
        self.entry = lru_cache(maxsize=64)(self.store.series)

    def add(self, numbers: np.ndarray, vectors: np.ndarray) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Take some images and give their rows.

        Args:
            numbers: (B,) of the images in the store.
            vectors: (B, D).

        Returns:
            A list per field of ``fields``, and the vectors.
        """
        one = self._frame if self.store.pixels == "rgb" else self._slice
        rows = [one(number) for number in numbers.tolist()]
        return {field.name: [row[field.name] for row in rows] for field in self.fields}, vectors

    def series_name(self, number: int) -> str:
        """Name of a series: its file or folder, or its key where only the store is there.

        Args:
            number: of the series in the store.
        """
        key = self.entry(number).series_key
        return self.names.series(key) or key

    def _slice(self, number: int) -> dict[str, Any]:
        record = self.store.index[number]
        series = int(record["series"])
        place = number - self.store.series_range(series).start
        part = BodyPart(int(record["body_part"]))
        file, inside = self.names(number)
        name = self.series_name(series)
        return {
            "id": _identity(file, inside) if file is not None else f"{name}#{place}",
            "series": name,
            "file": file,
            "slice": place,
            "position_mm": float(record["position"]),
            "body_part": None if part is BodyPart.UNKNOWN else part.name.lower(),
        } | self._shared(number, record, self.entry(series))

    def _frame(self, number: int) -> dict[str, Any]:
        record = self.store.index[number]
        series = int(record["series"])
        entry = self.entry(series)
        file, inside = self.names(number)
        place = number - self.store.series_range(series).start
        return {
            "id": _identity(file, inside) if file is not None else f"{entry.series_key}#{place}",
            "file": file,
            "frame": inside,
            "seconds": float(record["position"]) if entry.kind == "video" else None,
        } | self._shared(number, record, entry)

    def _shared(self, number: int, record: Any, entry: SeriesEntry) -> dict[str, Any]:
        label = int(record["label"])
        named = self.classes[label] if 0 <= label < len(self.classes) else str(label)
        return {"group": entry.patient_key, "label": None if label < 0 else named, "store_row": number}


def _identity(file: str, inside: int | None) -> str:
    return file if inside is None else f"{file}#{inside}"
