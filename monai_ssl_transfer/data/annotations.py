"""What annotators save, as a label server lists it: cases of "image" and "label" and nothing else.

MONAI Label trains a bundle on such a list instead of the bundle's own data set. The transforms below complete a case;
cases of a data set, which have what is missing here, pass unchanged.

| task | file of the label |
|---|---|
| segmentation | mask on the image, see `LoadMaskd`; NIfTI labels of a volume need nothing |
| classification | JSON ``{"label": "polyp"}``, of several findings ``{"labels": ["polyp", "ulcer"]}`` |
| detection | JSON ``{"markups": [{"center": [x, y, 0], "size": [w, h, 1]}]}``, 3D Slicer's and that of `AnswerBoxesd` |
| depth | 16-bit depth map, see `LoadDepthd` |
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ssl_transfer.errors import DataError

HALF_PIXEL = 0.5
"""From the centre of the first pixel, which is the origin of clients, to its outer edge, which is that of our boxes."""


class AnnotatedCased(MapTransform):
    """Give a case of an annotator the ``name`` and ``group`` that cases of data sets have: the file of its image.

    Args:
        keys: key with the path of the image.
        label_is: item that takes the label where the task calls it otherwise; None: it stays ``label``.
    """

    def __init__(self, keys: KeysCollection = "image", label_is: str | None = None) -> None:
        super().__init__(keys)
        self.label_is = label_is

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the completed case."""
        case = dict(data)
        for key in self.key_iterator(case):
            name = Path(str(case[key])).name if isinstance(case[key], str | Path) else str(key)
            case.setdefault("name", name)
            case.setdefault("group", case["name"])
        if self.label_is and self.label_is not in case and "label" in case:
            case[self.label_is] = case.pop("label")
        return case


class AnnotatedClassd(MapTransform):
    """Replace the label file of an annotator by ``class``: a class number, or 0 and 1 for each of several findings.

    Args:
        keys: key with the path of the JSON file.
        class_names: one per class.
        several: an image may show several findings or none.
    """

    def __init__(self, keys: KeysCollection, class_names: Sequence[str], several: bool = False) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.class_names, self.several = list(class_names), several

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its class.

        Raises:
            DataError: as `annotated_class`.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            if "class" not in case:
                case["class"] = annotated_class(case.pop(key), self.class_names, self.several)
        return case


class AnnotatedBoxesd(MapTransform):
    """Replace the box label of an annotator by ``boxes`` and ``class``, as cases of data sets have them.

    Args:
        keys: key with the path of the JSON file; or, where MONAI Label has read it already, any value beside ``box``,
            which then lists [x, y, z, width, height, depth] of each box, the centre first.
        number: class that all boxes get, from 1 on.
    """

    def __init__(self, keys: KeysCollection = "label", number: int = 1) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.number = number

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its boxes.

        Raises:
            DataError: the file lists no boxes, or a box is none.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            if "boxes" not in case:
                name = str(case.get("image", "an image"))
                label = case.pop(key)
                found = case.pop("box") if "box" in case else _marked_boxes(label)
                case |= {"boxes": [_edges(one, name) for one in found], "class": self.number}
        return case


def annotated_class(label: Any, class_names: Sequence[str], several: bool = False) -> int | list[int]:
    """The class that an annotator chose.

    Args:
        label: path of a JSON file with "label", or "labels" of several findings: names, upper or lower case.
        class_names: one per class.
        several: an image may show several findings or none.

    Returns:
        Number of the class; or 0 and 1 for each finding.

    Raises:
        DataError: no such file, other content, or a name that the task does not know.
    """
    content = _json(label)
    named = content.get("labels", [content["label"]] if "label" in content else None)
    if not isinstance(named, list) or (not several and len(named) != 1):
        wanted = '{"labels": ["…"]}' if several else '{"label": "…"}'
        raise DataError(f"{label} does not say what its image shows: write {wanted} into it.")
    numbers = {name.lower(): number for number, name in enumerate(class_names)}
    unknown = [name for name in named if str(name).lower() not in numbers]
    if unknown:
        raise DataError(f"{label} names the class {unknown[0]!r}: name one of {', '.join(class_names)}.")
    chosen = [numbers[str(name).lower()] for name in named]
    return [int(number in chosen) for number in range(len(class_names))] if several else chosen[0]


def with_classes(
    cases: Sequence[Mapping[str, Any]], class_names: Sequence[str], several: bool = False
) -> list[Mapping[str, Any]]:
    """Cases with their classes, those of annotators read from their label files; others as they are."""
    step: Any = AnnotatedClassd("label", class_names, several)
    return [case if "class" in case else step(case) for case in cases]


def _marked_boxes(file: Any) -> list[list[float]]:
    marks = _json(file).get("markups")
    try:
        return [[*mark["center"], *mark["size"]] for mark in marks or []] if marks is not None else _no_boxes(file)
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} holds a mark without center and size: save the boxes again.") from error


def _no_boxes(file: Any) -> list[list[float]]:
    raise DataError(
        f'{file} lists no boxes: write {{"markups": [{{"center": [x, y, 0], "size": [w, h, 1]}}]}} into it.'
    )


def _edges(box: Sequence[float], name: str) -> list[float]:
    """[x0, y0, x1, y1] with 0 at the outer edge of the first pixel."""
    values = np.asarray(box, dtype=float)
    if values.shape != (6,) or not np.isfinite(values).all() or (values[3:5] <= 0).any():
        raise DataError(f"a box on {name} is {list(box)} where its centre (3) and size (3) are needed: draw it again.")
    x, y, width, height = values[[0, 1, 3, 4]]
    left, top = x + HALF_PIXEL - width / 2, y + HALF_PIXEL - height / 2
    return [float(left), float(top), float(left + width), float(top + height)]


def _json(file: Any) -> dict[str, Any]:
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as the JSON file of a label ({error}): save the label again."
        ) from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is no JSON object: save the label again.")
    return content
