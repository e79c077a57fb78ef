"""GIANA 2017 angiodysplasia on disk: capsule frames with and without lesions, and the lesions' masks."""

from __future__ import annotations

import re
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import (
    Case,
    existing_folder,
    group_near_duplicates,
    list_frames,
    refuse_unknown,
    refuse_unpaired,
    subfolders,
)
from monai_ssl_transfer.data.endoscopy.frames import read_mask
from monai_ssl_transfer.data.endoscopy.near_duplicates import DUPLICATE_THRESHOLD
from monai_ssl_transfer.errors import DataError

CLASS_NAMES = ("normal", "angiodysplasia")

_EXPECTED = "the folder of GIANA 2017's training set, with angyodysplasia/{images,masks} and normal/images"
_LESIONS = re.compile(r"ang[iy]o?dys?plasia", re.IGNORECASE)


def angiodysplasia_cases(dataset_dir: str | Path, duplicate_threshold: int | None = DUPLICATE_THRESHOLD) -> list[Case]:
    """List the training frames of GIANA 2017's angiodysplasia task.

    Masks are JPEG or PNG and may carry the suffix ``_a`` (``1103.jpg`` with ``1103_a.jpg``). Normal frames need no
    mask; one that is there must be black. The unlabelled frames of ``test`` are not listed.

    Args:
        dataset_dir: folder with ``angyodysplasia`` (or ``angiodysplasia``) and ``normal``, at most two levels below.
        duplicate_threshold: bits of 256 in which the hashes of two frames of one group differ at most (the set
            names no patients); None makes every frame its own group.

    Returns:
        One dict per frame, lesions first, in natural order: "name" (``angiodysplasia-1103``), "image", "label" (path of
        the mask, "" for a normal frame), "class" (1 with lesion, else 0), "group".

    Raises:
        DataError: a folder is missing or empty, a frame with a lesion has no mask, a mask has no frame, or a normal
            frame has a mask that shows something.
    """
    lesions, normal = _class_folders(existing_folder(dataset_dir, _EXPECTED))
    images, masks = _frames_of(lesions), _masks_of(lesions)
    refuse_unpaired(images, masks, lesions / "masks")
    cases: list[Case] = [
        {"name": f"angiodysplasia-{name}", "image": str(path), "label": str(masks[name]), "class": 1}
        for name, path in images.items()
    ]
    images = _frames_of(normal)
    _check_normal_masks(images, _masks_of(normal), normal / "masks")
    cases += [{"name": f"normal-{name}", "image": str(path), "label": "", "class": 0} for name, path in images.items()]
    return group_near_duplicates(cases, duplicate_threshold)


def _class_folders(folder: Path) -> tuple[Path, Path]:
    for place in subfolders(folder, 2):
        inside = [path for path in place.iterdir() if path.is_dir()]
        lesions = [path for path in inside if _LESIONS.fullmatch(path.name)]
        normal = [path for path in inside if path.name.lower() == "normal"]
        if len(lesions) > 1:
            raise DataError(f"{lesions[0]} and {lesions[1]} both hold angiodysplasia: keep one of them.")
        if lesions and normal:
            return lesions[0], normal[0]
        if lesions or normal:
            lacking = "normal" if lesions else "angyodysplasia"
            raise DataError(f"{place} lacks the folder {lacking}: give {_EXPECTED}.")
    raise DataError(f"{folder} holds no folder angyodysplasia beside normal: give {_EXPECTED}.")


def _frames_of(folder: Path) -> dict[str, Path]:
    images = list_frames(folder / "images") if (folder / "images").is_dir() else {}
    if not images:
        raise DataError(f"{folder / 'images'} holds no frame: restore the frames of this class.")
    return images


def _masks_of(folder: Path) -> dict[str, Path]:
    """Masks by the name of their frame: ``1103_a`` belongs to ``1103``."""
    masks = folder / "masks"
    return list_frames(masks, lambda stem: stem.removesuffix("_a")) if masks.is_dir() else {}


def _check_normal_masks(images: dict[str, Path], masks: dict[str, Path], folder: Path) -> None:
    refuse_unknown(masks, images, folder, "normal frame")
    for path in masks.values():
        if read_mask(path).any():
            raise DataError(
                f"{path} shows a lesion but its frame lies under normal: move both to angyodysplasia or empty the mask."
            )
