"""Images with binary masks in parallel folders: Montgomery's and Shenzhen's lungs, and others of the kind."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case, existing_folder, list_frames, subfolders
from monai_ssl_transfer.data.images.division import group_images
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

UNMASKED = ("refuse", "leave_out")


def masked_cases(
    dataset_dir: str | Path,
    image_folder: str = "images",
    mask_folders: Sequence[str] = ("masks",),
    mask_suffix: str = "",
    unmasked: str = "refuse",
    stratum_pattern: str | None = None,
    group_pattern: str | None = None,
    duplicate_threshold: int | None = None,
) -> list[Case]:
    """List images with the masks that are drawn on them.

    Args:
        dataset_dir: folder of the data set.
        image_folder: name of the folder of images in it, at most two levels below; ``A/B`` is B in A.
        mask_folders: likewise the folders of masks; an image's masks in all of them are merged into one (left and right
            lung).
        mask_suffix: what a mask's name has after the image's: "_mask" for ``1_mask.png`` of ``1.png``.
        unmasked: images without a mask: "refuse", or "leave_out" (the log says how many) where a data set is known to
            have masks of some only.
        stratum_pattern: regular expression that is searched in the image's name; what its first parentheses find (sick
            or not) is what every part gets its share of.
        group_pattern: as for `group_images`; else near duplicates by ``duplicate_threshold``.
        duplicate_threshold: likewise.

    Returns:
        One dict per image in natural order: "name", "image", "label" (path of the mask, or of all its masks), "group",
        and "stratum" where there is a pattern.

    Raises:
        DataError: a folder is missing, an image lacks one or all of its masks, or a mask has no image.
    """
    if unmasked not in UNMASKED:
        raise DataError(f"unmasked '{unmasked}' is unknown: choose one of {', '.join(UNMASKED)}.")
    expected = f"a folder with {image_folder} and {', '.join(mask_folders)}"
    root = existing_folder(dataset_dir, expected)
    images = list_frames(_find(root, image_folder, expected))
    places = [_find(root, name, expected) for name in mask_folders]
    masks = [_masks(place, mask_suffix) for place in places]
    _refuse_strangers(images, masks)
    cases, without = _paired(images, masks, places)
    if without and unmasked == "refuse":
        raise DataError(
            f"{without[0]} has no mask in {places[0]} ({len(without)} such): add it, remove the image, or set unmasked "
            "to leave_out."
        )
    if without:
        logger.warning("%d of %d images have no mask and are left out", len(without), len(images))
    if not cases:
        raise DataError(f"{root} holds no image with a mask: give {expected}.")
    if stratum_pattern is not None:
        cases = [{**case, "stratum": _stratum(case, stratum_pattern)} for case in cases]
    return group_images(cases, group_pattern, duplicate_threshold)


def _find(root: Path, name: str, expected: str) -> Path:
    for place in subfolders(root, 2):
        if (place / name).is_dir() and list_frames(place / name):
            return place / name
    raise DataError(f"{root} holds no folder {name} with images: give {expected}.")


def _masks(place: Path, suffix: str) -> dict[str, Path]:
    """Masks by the name of their image; files without the suffix are none of these masks."""
    return {stem.removesuffix(suffix): path for stem, path in list_frames(place).items() if stem.endswith(suffix)}


def _refuse_strangers(images: dict[str, Path], masks: Sequence[dict[str, Path]]) -> None:
    strangers = [path for found in masks for name, path in found.items() if name not in images]
    if strangers:
        raise DataError(
            f"{strangers[0]} is the mask of no image ({len(strangers)} such): restore the image or remove the mask."
        )


def _paired(
    images: dict[str, Path], masks: Sequence[dict[str, Path]], places: Sequence[Path]
) -> tuple[list[Case], list[Path]]:
    """Cases, and the images without any mask; one that has some of its masks is damage."""
    cases: list[Case] = []
    without: list[Path] = []
    for name, image in images.items():
        found = [str(one[name]) for one in masks if name in one]
        if not found:
            without.append(image)
            continue
        if len(found) < len(masks):
            place = next(place for place, one in zip(places, masks, strict=True) if name not in one)
            raise DataError(f"{image} has no mask in {place} but has {found[0]}: restore the missing mask.")
        cases.append({"name": name, "image": str(image), "label": found if len(masks) > 1 else found[0]})
    return cases, without


def _stratum(case: Case, pattern: str) -> str:
    found = re.search(pattern, case["name"])
    if found is None or not found.groups():
        raise DataError(f"{case['image']} does not fit stratum_pattern {pattern!r}: rename it or correct the pattern.")
    return found.group(1)
