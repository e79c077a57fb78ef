"""The two SARS-CoV-2 CT sets of Soares, Angelov et al. (Sao Paulo, 2020) on disk: slices as PNG, COVID-19 or not.

``COVID/*.png`` and ``non-COVID/*.png`` (2,482 slices, patients not named), or ``Covid``, ``Healthy`` and ``Others``
with a folder per patient (4,173 slices of 210 patients), of which the last two are "non-COVID" here.
"""

from __future__ import annotations

import logging
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case, existing_folder, list_frames, subfolders
from monai_ssl_transfer.data.images.division import group_images
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

CLASS_NAMES = ("non-COVID", "COVID")
_NUMBERS = {"covid": 1, "noncovid": 0, "healthy": 0, "others": 0, "other": 0, "normal": 0}
_EXPECTED = "the folder of a SARS-CoV-2 CT set, with COVID and non-COVID, or with Covid, Healthy and Others"


def covid_cases(dataset_dir: str | Path, duplicate_threshold: int | None = None) -> list[Case]:
    """List the slices with their class and, where the layout has them, their patients.

    Args:
        dataset_dir: folder of the class folders, at most two levels below.
        duplicate_threshold: where no patients are named: bits of 256 in which the hashes of two slices of one group
            differ at most; None makes every slice its own group. Slices of one patient may then be on both sides.

    Returns:
        One dict per slice in natural order: "name" (path below the class folders' folder), "image", "class" (number in
        `CLASS_NAMES`), "group", and with patients "volume": the patient's slices are one volume.

    Raises:
        DataError: a class folder is missing or empty, or only some of the slices lie in folders of patients.
    """
    root = _root(existing_folder(dataset_dir, _EXPECTED))
    cases: list[Case] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and _plain(path) in _NUMBERS):
        listed = _slices(root, folder, _NUMBERS[_plain(folder)])
        if not listed:
            raise DataError(f"{folder} holds no slice: restore the images of this class.")
        cases += listed
    for number, name in enumerate(CLASS_NAMES):
        if not any(case["class"] == number for case in cases):
            raise DataError(f"{root} has no slice of the class {name}: give {_EXPECTED}.")
    with_patients = [case for case in cases if "volume" in case]
    if len(with_patients) == len(cases):
        return cases
    if with_patients:
        alone = next(case for case in cases if "volume" not in case)
        raise DataError(f"{alone['image']} lies in no folder of a patient, as others do: sort all slices alike.")
    logger.warning("%s names no patients: slices of one patient may be trained on and tested", root)
    return group_images(cases, None, duplicate_threshold)


def _root(folder: Path) -> Path:
    for place in subfolders(folder, 2):
        inside = {_plain(path) for path in place.iterdir() if path.is_dir()}
        if "covid" in inside:
            return place
    raise DataError(f"{folder} holds no folder COVID: give {_EXPECTED}.")


def _plain(path: Path) -> str:
    return path.name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _slices(root: Path, folder: Path, number: int) -> list[Case]:
    places = list(subfolders(folder, 1))
    cases: list[Case] = []
    for place in places:
        patient = place.relative_to(root).as_posix()
        extra = {} if place == folder else {"group": patient, "volume": patient}
        cases += [
            {"name": path.relative_to(root).as_posix(), "image": str(path), "class": number} | extra
            for path in list_frames(place).values()
        ]
    return cases
