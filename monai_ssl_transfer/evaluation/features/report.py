"""The report on features as files: a page, JSON and tables."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.evaluation.features.images import ChosenImages
from monai_ssl_transfer.evaluation.features.page import features_page
from monai_ssl_transfer.evaluation.features.page_maps import map_positions
from monai_ssl_transfer.evaluation.features.page_sheets import sheet_positions
from monai_ssl_transfer.evaluation.features.pictures import data_uri
from monai_ssl_transfer.evaluation.features.result import EncoderResult, FeatureResult
from monai_ssl_transfer.evaluation.features.summary import sentences
from monai_ssl_transfer.evaluation.robustness import Measured

FORMAT = 1
_LARGE, _SMALL = 128, 56


def write_features(result: FeatureResult, images: ChosenImages, out: Path) -> Path:
    """Write `features.html`, `features.json`, `features.csv`, `cka.csv`, `points.csv`, `neighbours.csv`.

    Args:
        result: of `measure_features`.
        images: that it is about, for the pictures.
        out: folder.

    Returns:
        The page.
    """
    numbers = images.numbers.tolist()
    pictures = {position: data_uri(images.store, numbers[position], _LARGE) for position in sheet_positions(result)}
    small = {position: data_uri(images.store, numbers[position], _SMALL) for position in map_positions(result)}
    files = {
        "features.csv": _csv(("encoder", "measure", "value", "low", "high"), _measures(result)),
        "cka.csv": _csv(("first", "second", "layer_of_first", "layer_of_second", "cka"), _cka(result)),
        "points.csv": _csv(("encoder", "method", "image", "group", "class", "x", "y"), _points(result)),
        "neighbours.csv": _csv(("encoder", "image", "rank", "neighbour", "cosine"), _neighbours(result)),
        "features.json": json.dumps(as_json(result), indent=1, allow_nan=False) + "\n",
        "features.html": features_page(result, pictures, small),
    }
    for name, text in files.items():
        write_durably(out / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return out / "features.html"


def as_json(result: FeatureResult) -> dict[str, Any]:
    """The report without its pictures, points and neighbours, which stand in the tables."""
    return {
        "format": FORMAT,
        "title": result.title,
        "images": result.images,
        "of_images": result.total,
        "patients": result.patients,
        "classes": sorted(set(result.labels) - {""}),
        "views": result.views,
        "seed": result.seed,
        "in_short": sentences(result),
        "notes": list(result.notes),
        "encoders": [_encoder(one) for one in result.encoders],
        "comparisons": [
            {
                "first": one.first,
                "second": one.second,
                "layers_of_first": list(one.layers[0]),
                "layers_of_second": list(one.layers[1]),
                "cka": [[_number(value) for value in row] for row in one.cka.tolist()],
            }
            for one in result.comparisons
        ],
    }


def _encoder(one: EncoderResult) -> dict[str, Any]:
    facts = ("name", "source", "sha256", "random", "architecture", "channels", "image_size", "width")
    found: dict[str, Any] = {name: getattr(one, name) for name in facts}
    found |= {name: _number(getattr(one, name)) for name in ("effective_rank", "rankme", "alignment", "uniformity")}
    found["explained_variance"] = list(one.explained)
    if one.classes is not None:
        apart, share = one.classes.separability, one.classes.same_class
        names = ("silhouette", "fisher_ratio", "class_distance")
        found |= {name: _number(getattr(apart, name)) for name in names}
        found["neighbours_of_the_same_class"] = None if share is None else _measured(share)
        found["neighbours_of_the_same_class_by_chance"] = _number(one.classes.chance)
    found["properties"] = {
        name: {
            "r2": _measured(value.r2),
            "beyond_random": None if value.beyond_random is None else _measured(value.beyond_random),
        }
        for name, value in one.properties.items()
    }
    return found


def _measured(one: Measured) -> dict[str, float | None]:
    return {"value": _number(one.value), "low": _number(one.low), "high": _number(one.high)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _measures(result: FeatureResult) -> Iterable[Sequence[Any]]:
    for one in result.encoders:
        for name in ("width", "effective_rank", "rankme", "alignment", "uniformity"):
            yield one.name, name, getattr(one, name), "", ""
        if one.classes is not None:
            for name in ("silhouette", "fisher_ratio", "class_distance"):
                yield one.name, name, getattr(one.classes.separability, name), "", ""
            if one.classes.same_class is not None:
                yield one.name, "neighbours_of_the_same_class", *_ends(one.classes.same_class)
        for name, value in one.properties.items():
            yield one.name, f"r2_{name}", *_ends(value.r2)
            if value.beyond_random is not None:
                yield one.name, f"r2_{name}_beyond_random", *_ends(value.beyond_random)


def _ends(one: Measured) -> tuple[Any, Any, Any]:
    low, high = (value if math.isfinite(value) else "" for value in (one.low, one.high))
    return one.value, low, high


def _cka(result: FeatureResult) -> Iterable[Sequence[Any]]:
    for one in result.comparisons:
        for i, j in np.ndindex(one.cka.shape):
            value = float(one.cka[i, j])
            yield one.first, one.second, one.layers[0][i], one.layers[1][j], value if math.isfinite(value) else ""


def _points(result: FeatureResult) -> Iterable[Sequence[Any]]:
    labels = result.labels or ("",) * result.images
    for one in result.encoders:
        for method, points in one.planes.items():
            for (x, y), name, group, label in zip(points.tolist(), result.names, result.groups, labels, strict=True):
                yield one.name, method, name, group, label, x, y


def _neighbours(result: FeatureResult) -> Iterable[Sequence[Any]]:
    for one in result.encoders:
        if one.neighbours is None or one.cosines is None:
            continue
        for image, (near, cosines) in enumerate(zip(one.neighbours.tolist(), one.cosines.tolist(), strict=True)):
            for rank, (position, cosine) in enumerate(zip(near, cosines, strict=True), 1):
                if position >= 0:
                    yield one.name, result.names[image], rank, result.names[position], cosine


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
