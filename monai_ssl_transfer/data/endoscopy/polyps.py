"""Kvasir-SEG, CVC-ClinicDB and HyperKvasir's segmented images on disk: photograph, mask and group of every polyp."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import (
    Case,
    choose_listed,
    existing_folder,
    group_near_duplicates,
    list_frames,
    refuse_same_names,
    refuse_unpaired,
    subfolders,
)
from monai_ssl_transfer.data.endoscopy.near_duplicates import DUPLICATE_THRESHOLD
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

_EXPECTED = (
    "the folder of Kvasir-SEG or of HyperKvasir's segmented images (images/ and masks/) or of CVC-ClinicDB "
    "(Original/ and Ground Truth/)"
)
_CVC_PREFERENCE = (".tif", ".tiff", ".png")


@dataclass(frozen=True)
class PolypFolders:
    """Where a data set of polyps keeps its photographs and masks.

    Args:
        images: folder of the photographs.
        masks: folder of the masks.
        sequences: whether the photographs are numbered frames of CVC-ClinicDB.
    """

    images: Path
    masks: Path
    sequences: bool


def polyp_cases(
    dataset_dir: str | Path | Sequence[str | Path],
    split_file: str | Path | None = None,
    duplicate_threshold: int | None = DUPLICATE_THRESHOLD,
) -> list[Case]:
    """List photographs of polyps with their masks.

    The layout is recognised: Kvasir-SEG and HyperKvasir's ``segmented-images`` (``images``, ``masks``), CVC-ClinicDB
    (``Original``, ``Ground Truth``) as TIFF or as the PNG copy; of a folder with both copies the TIFF is taken.

    Args:
        dataset_dir: folder of the data set, or one that holds it; a list joins several data sets, and looks for the
            same scene across them (but not in CVC-ClinicDB, whose frames are not hashed).
        split_file: text file of names, one per line, as Kvasir-SEG's official ones; only these cases are listed.
        duplicate_threshold: bits of 256 in which the hashes of two photographs of one group differ at most; None makes
            every photograph its own group. CVC-ClinicDB's groups are its sequences in any case.

    Returns:
        One dict per photograph in natural order: "name", "image", "label" (path of the mask), "group".

    Raises:
        DataError: no such folder, no or several data sets in it, a photograph without mask, a mask without
            photograph, a frame that belongs to no sequence of CVC-ClinicDB, or a name in two data sets.
    """
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    sequenced: list[Case] = []
    single: list[Case] = []
    for folder in folders:
        cases, sequences = paired_polyps(folder)
        if sequences:
            sequenced += [{**case, "group": cvc_sequence(case["image"])} for case in cases]
        else:
            single += cases
    cases = sequenced + (group_near_duplicates(single, duplicate_threshold) if single else [])
    refuse_same_names(cases)
    return cases if split_file is None else choose_listed(cases, split_file)


def paired_polyps(dataset_dir: str | Path) -> tuple[list[Case], bool]:
    """Photographs of polyps with their masks, without groups.

    Returns:
        Cases with "name", "image", "label"; whether they are frames of CVC-ClinicDB's sequences.

    Raises:
        DataError: as `polyp_cases`.
    """
    folders = find_polyp_folders(dataset_dir)
    images, masks = list_frames(folders.images), list_frames(folders.masks)
    if not images and not masks:
        raise DataError(f"{folders.images} holds no photograph: give {_EXPECTED}.")
    refuse_unpaired(images, masks, folders.masks)
    cases = [{"name": name, "image": str(path), "label": str(masks[name])} for name, path in images.items()]
    return cases, folders.sequences


def find_polyp_folders(dataset_dir: str | Path) -> PolypFolders:
    """Find the folders of photographs and masks in a data set's folder or at most two levels below.

    Raises:
        DataError: no such folder, none found, or several that are not copies of each other.
    """
    folder = existing_folder(dataset_dir, _EXPECTED)
    found: list[PolypFolders] = []
    for place in subfolders(folder, 2):
        names = {path.name.lower().replace(" ", "").replace("_", ""): path for path in place.iterdir() if path.is_dir()}
        for images, masks in (("images", "masks"), ("original", "groundtruth")):
            if images in names and masks in names:
                found.append(PolypFolders(names[images], names[masks], images == "original"))
    if not found:
        raise DataError(
            f"{folder} holds neither images/ with masks/ nor Original/ with Ground Truth/: give {_EXPECTED}."
        )
    return found[0] if len(found) == 1 else _preferred_copy(folder, found)


def cvc_sequence(image: str | Path) -> str:
    """The sequence of CVC-ClinicDB that a frame belongs to, by its number: ``sequence-01`` to ``sequence-29``.

    Raises:
        DataError: the file's name is no number of a frame of CVC-ClinicDB.
    """
    path = Path(image)
    if path.stem.isascii() and path.stem.isdigit():
        for number, (first, last) in enumerate(_sequences(), start=1):
            if first <= int(path.stem) <= last:
                return f"sequence-{number:02d}"
    raise DataError(
        f"{path} is no frame of CVC-ClinicDB, which are named by their number, 1 to {_sequences()[-1][1]}: restore its "
        "name, for it tells the sequence, or rename the folders to images/ and masks/ for other polyps."
    )


@lru_cache(maxsize=1)
def _sequences() -> tuple[tuple[int, int], ...]:
    described = json.loads((files(__package__) / "cvc_clinicdb_sequences.json").read_text(encoding="utf-8"))
    return tuple((first, last) for first, last in described["sequences"])


def _preferred_copy(folder: Path, found: list[PolypFolders]) -> PolypFolders:
    """Of CVC-ClinicDB's TIFF and PNG copies the TIFF, which is the original."""
    kinds = [_kind(one.images) for one in found]
    if "" in kinds or not all(one.sequences for one in found) or len(set(kinds)) < len(kinds):
        listed = " and ".join(str(one.images) for one in found)
        raise DataError(f"{folder} holds several data sets ({listed}): give the folder of one of them.")
    chosen = min(range(len(found)), key=lambda index: _CVC_PREFERENCE.index(kinds[index]))
    logger.info("%s holds copies of CVC-ClinicDB as %s: %s is used", folder, ", ".join(kinds), found[chosen].images)
    return found[chosen]


def _kind(images: Path) -> str:
    kinds = {path.suffix.lower() for path in list_frames(images).values()}
    return kinds.pop() if len(kinds) == 1 and kinds <= set(_CVC_PREFERENCE) else ""
