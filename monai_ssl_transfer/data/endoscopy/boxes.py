"""Boxes around polyps: those that Kvasir-SEG and HyperKvasir publish, or those of the masks."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from monai_ssl_transfer.data.endoscopy.frame_listing import (
    Case,
    existing_folder,
    group_near_duplicates,
    list_frames,
    refuse_unknown,
    subfolders,
)
from monai_ssl_transfer.data.endoscopy.frames import frame_size, read_mask
from monai_ssl_transfer.data.endoscopy.near_duplicates import DUPLICATE_THRESHOLD
from monai_ssl_transfer.data.endoscopy.polyps import cvc_sequence, paired_polyps
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

BOX_FILES = ("kavsir_bboxes.json", "kvasir_bboxes.json", "bounding-boxes.json")
"""Kvasir-SEG's file (whose name is spelled so), its corrected spelling, and HyperKvasir's."""

SMALLEST_SHARE = 1e-4
"""Parts of a mask below this share of the image are specks: JPEG leaves single pixels; the least polyps are 1e-3."""

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def polyp_box_cases(
    dataset_dir: str | Path,
    source: str = "auto",
    smallest_share: float = SMALLEST_SHARE,
    duplicate_threshold: int | None = DUPLICATE_THRESHOLD,
) -> list[Case]:
    """List photographs of polyps with a box around every polyp.

    Args:
        dataset_dir: folder of Kvasir-SEG, HyperKvasir's ``segmented-images`` or, for boxes of masks, CVC-ClinicDB.
        source: "file" (``kavsir_bboxes.json``, ``bounding-boxes.json``), "masks" (one box per connected part of the
            mask), or "auto": the file where there is one.
        smallest_share: parts of a mask below this share of the image's pixels get no box; the log counts them.
        duplicate_threshold: as in `polyp_cases`.

    Returns:
        One dict per photograph in natural order: "name", "image", "boxes" (list of [x0, y0, x1, y1], floats in pixels
        of the upright photograph, x1 and y1 behind the last pixel; [] where there is no polyp), "class" (1), "group".

    Raises:
        DataError: no boxes to be had, a photograph without entry or an entry without photograph, a box that is inverted
            or outside its image, or an entry for another size of image.
    """
    if source not in ("auto", "file", "masks"):
        raise DataError(f"the source of boxes '{source}' is unknown: choose auto, file or masks.")
    folder = existing_folder(dataset_dir, "the folder of a data set of polyps")
    file = None if source == "masks" else _box_file(folder)
    if source == "file" and file is None:
        raise DataError(f"{folder} holds none of {', '.join(BOX_FILES)}: restore the file, or take boxes of the masks.")
    if file is not None:
        return group_near_duplicates(_published(file), duplicate_threshold)
    cases, sequences = paired_polyps(folder)
    cases = _of_masks(cases, smallest_share)
    if sequences:
        return [{**case, "group": cvc_sequence(case["image"])} for case in cases]
    return group_near_duplicates(cases, duplicate_threshold)


def boxes_of_mask(mask: np.ndarray, smallest_share: float = SMALLEST_SHARE) -> tuple[list[list[float]], int]:
    """Boxes around the connected parts of a mask; pixels that touch at a corner are connected.

    Args:
        mask: (rows, columns) bool.
        smallest_share: smaller parts, as a share of all pixels, are left out.

    Returns:
        Boxes [x0, y0, x1, y1] in pixels, x1 and y1 behind the last one, the largest part first; how many parts were
        left out.
    """
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    places = ndimage.find_objects(parts)
    kept = [index for index in np.argsort(-areas, kind="stable") if areas[index] >= smallest_share * mask.size]
    boxes = [
        [float(places[i][1].start), float(places[i][0].start), float(places[i][1].stop), float(places[i][0].stop)]
        for i in kept
    ]
    return boxes, count - len(kept)


def _box_file(folder: Path) -> Path | None:
    found = [place / name for place in subfolders(folder, 2) for name in BOX_FILES if (place / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]} both tell boxes: keep one of them, or give the folder of one.")
    return found[0] if found else None


def _published(file: Path) -> list[Case]:
    """Cases of a published file of boxes; the photographs are in ``images`` beside it."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not a JSON file ({error}): restore it.") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{file} lists no boxes by image: restore it.")
    folder = file.parent / "images"
    images = list_frames(folder) if folder.is_dir() else {}
    refuse_unknown(content, images, file, f"photograph in {folder.name}/")
    alone = [path for name, path in images.items() if name not in content]
    if alone:
        raise DataError(
            f"{alone[0]} is not listed in {file} ({len(alone)} such): complete the file or remove the image."
        )
    return [
        {"name": name, "image": str(path), "boxes": _checked_boxes(content[name], path, file), "class": 1}
        for name, path in images.items()
    ]


def _checked_boxes(entry: Any, image: Path, file: Path) -> list[list[float]]:
    rows, columns = frame_size(image)
    try:
        stated = (int(entry.get("height", rows)), int(entry.get("width", columns)))
        boxes = [[float(box[edge]) for edge in _EDGES] for box in entry["bbox"]]
        labels = {str(box.get("label", "polyp")).lower() for box in entry["bbox"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file} has no list of boxes for {image.name} ({error!r}): restore the entry.") from error
    if labels - {"polyp"}:
        raise DataError(
            f"{file} calls a box of {image.name} '{min(labels - {'polyp'})}', not polyp: correct the entry."
        )
    if stated != (rows, columns):
        raise DataError(
            f"{image} has {columns} x {rows} pixels but {file} gives boxes for {stated[1]} x {stated[0]}: restore the "
            "original image, or take boxes of the masks."
        )
    for box in boxes:
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
            problem = "inverted or empty" if x1 <= x0 or y1 <= y0 else f"outside its {columns} x {rows} pixels"
            raise DataError(f"{file} gives {image.name} the box {box}, which is {problem}: correct the entry.")
    return boxes


def _of_masks(cases: list[Case], smallest_share: float) -> list[Case]:
    boxed: list[Case] = []
    dropped = 0
    for case in cases:
        mask, size = read_mask(Path(case["label"])), frame_size(Path(case["image"]))
        if mask.shape != size:
            raise DataError(
                f"{case['label']} has {mask.shape[1]} x {mask.shape[0]} pixels but {case['image']} has "
                f"{size[1]} x {size[0]}: restore the mask of this photograph."
            )
        boxes, specks = boxes_of_mask(mask, smallest_share)
        dropped += specks
        boxed.append({"name": case["name"], "image": case["image"], "boxes": boxes, "class": 1})
    logger.info(
        "%d boxes from %d masks; %d specks below %g of the image have none",
        sum(len(case["boxes"]) for case in boxed),
        len(boxed),
        dropped,
        smallest_share,
    )
    return boxed
