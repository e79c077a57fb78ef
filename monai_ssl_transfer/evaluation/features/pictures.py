"""Small pictures of images for the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.views.windows import SOFT_TISSUE

_QUALITY = 80


def data_uri(store: SliceStore, number: int, side: int) -> str:
    """An image of a store as a JPEG for a page, as data URI.

    Args:
        store: where it is.
        number: in the store.
        side: longest side in pixels.
    """
    small = Image.fromarray(_drawn(store, number))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _drawn(store: SliceStore, number: int) -> np.ndarray:
    """(rows, columns[, 3]) uint8; CT in the soft tissue window and with square pixels."""
    pixels = store.read(number)
    if store.pixels == "rgb":
        return pixels
    grey = (np.clip((pixels - SOFT_TISSUE.lower) / SOFT_TISSUE.width, 0, 1) * 255).astype(np.uint8)
    record = store.index[number]
    row, column = float(record["row_spacing"]), float(record["column_spacing"])
    if row > 0 and column > 0 and abs(row / column - 1) > 0.02:
        unit = min(row, column)
        size = (round(grey.shape[1] * column / unit), round(grey.shape[0] * row / unit))
        grey = np.array(Image.fromarray(grey).resize(size))
    return grey


def spread_pictures(points: np.ndarray, columns: int, rows: int) -> list[tuple[int, int, int]]:
    """Which images stand for the parts of a plane: of every cell of a grid over it, the one nearest to its centre.

    Args:
        points: (N, 2).
        columns: of the grid.
        rows: of the grid.

    Returns:
        (position, column, row) of each cell that has an image; row 0 is at the top, where y is largest.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    share = (points - low) / np.maximum(high - low, 1e-12)
    scaled = np.stack([share[:, 0] * columns, (1 - share[:, 1]) * rows], axis=1)
    cells = np.minimum(scaled.astype(int), [columns - 1, rows - 1])
    away = np.linalg.norm(scaled - cells - 0.5, axis=1)
    nearest: dict[tuple[int, int], int] = {}
    for position in np.argsort(away, kind="stable").tolist():
        nearest.setdefault((int(cells[position, 0]), int(cells[position, 1])), position)
    return [(position, *cell) for cell, position in sorted(nearest.items())]


def chosen_queries(labels: Sequence[str], groups: Sequence[str], count: int) -> list[int]:
    """Images whose neighbours are shown: of every class in turn, else of every patient, in the order of the images.

    Args:
        labels: (N,) classes, or none.
        groups: (N,) patients.
        count: how many.
    """
    kinds = list(labels) if len(labels) else list(groups)
    turns: dict[str, int] = {}
    ranked = []
    for position, kind in enumerate(kinds):
        turns[kind] = turns.get(kind, -1) + 1
        ranked.append((turns[kind], position))
    return sorted(position for _, position in sorted(ranked)[:count])
