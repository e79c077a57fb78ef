"""Layouts of public data sets on disk: which image belongs to which label, without opening a voxel."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

_SUFFIXES = (".nii.gz", ".nii")
_LITS_NAME = re.compile(r"^(?P<kind>test-volume|volume|segmentation)-(?P<case>\d+)$")
_LABEL_NAME = re.compile(r"(?:^|[-_])(?:seg|segmentation|labels?|masks?)(?:[-_]|$)", re.IGNORECASE)


def liver_cases(dataset_dir: str | Path, *, unlabelled: bool = False) -> list[dict[str, str]]:
    """List the cases of a liver data set in LiTS or MSD Task03 layout.

    LiTS: ``volume-N.nii[.gz]`` with ``segmentation-N.nii[.gz]``, in one folder, in batch folders, or as
    ``imagesTr``/``labelsTr``. MSD: ``dataset.json`` with ``training`` and ``test``; it is believed where it exists.

    Args:
        dataset_dir: folder of the data set, or a single NIfTI file where ``unlabelled``.
        unlabelled: list what can be segmented instead: every image, also ``test-volume-N``, ``imagesTs`` and, where a
            folder has neither layout, every NIfTI file that is no label; labels are left out.

    Returns:
        One dict per case in numeric order: ``{"case": "0", "image": path, "label": path}``, without ``label`` when
        ``unlabelled``.

    Raises:
        DataError: there is no such folder or no case in it, two files claim one case, or an image or label is missing.
    """
    folder = Path(dataset_dir)
    if unlabelled and folder.is_file() and folder.name.endswith(_SUFFIXES):
        return [{"case": nifti_stem(folder), "image": str(folder)}]
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder of a data set in LiTS or MSD Task03 layout.")
    described = folder / "dataset.json"
    if described.is_file():
        return _decathlon_cases(described, unlabelled)
    files = sorted(nifti_files(folder))
    if unlabelled:
        return _images(folder, files)
    return _lits_cases(folder, files)


def check_label_values(labels: np.ndarray, file: str | Path, allowed: Collection[int] = (0, 1, 2)) -> None:
    """Refuse a label volume with values that the task does not know.

    Args:
        labels: voxels of any integer type.
        file: where they come from, for the message.
        allowed: values of the task; LiTS: 0 background, 1 liver, 2 tumour.

    Raises:
        DataError: another value occurs.
    """
    found = np.unique(labels)
    foreign = [f"{value:g}" for value in found if value not in allowed]
    if foreign:
        known = ", ".join(str(value) for value in sorted(allowed))
        raise DataError(
            f"{file} holds the label values {', '.join(foreign[:5])} but the task knows only {known}: "
            "map the labels or choose the right file."
        )


def nifti_files(folder: Path) -> Iterator[Path]:
    """NIfTI files below a folder, without hidden ones."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.name.endswith(_SUFFIXES) and not any(part.startswith(".") for part in inside) and path.is_file():
            yield path  # names with a leading dot are macOS's "._" companions and other hidden files


def nifti_stem(path: Path) -> str:
    """Name of a NIfTI file without its ending."""
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def _by_case(folder: Path, files: list[Path], kind: str) -> dict[int, Path]:
    """Files of one kind by case number."""
    found: dict[int, Path] = {}
    for path in files:
        match = _LITS_NAME.match(nifti_stem(path))
        if match is None or match["kind"] != kind:
            continue
        case = int(match["case"])
        if case in found:
            raise DataError(
                f"{found[case]} and {path} both claim case {case} of {folder}: remove or rename one of them."
            )
        found[case] = path
    return found


def _lits_cases(folder: Path, files: list[Path]) -> list[dict[str, str]]:
    images, labels = _by_case(folder, files, "volume"), _by_case(folder, files, "segmentation")
    if not images and not labels:
        raise DataError(
            f"{folder} holds no volume-N.nii.gz with segmentation-N.nii.gz and no dataset.json: "
            "give the folder of a data set in LiTS or MSD Task03 layout."
        )
    for case, path in images.items():
        if case not in labels:
            raise DataError(
                f"{path} has no segmentation-{case}.nii.gz in {folder}: add the label or remove the volume."
            )
    for case, path in labels.items():
        if case not in images:
            raise DataError(f"{path} has no volume-{case}.nii.gz in {folder}: add the volume or remove the label.")
    return [{"case": str(case), "image": str(images[case]), "label": str(labels[case])} for case in sorted(images)]


def _images(folder: Path, files: list[Path]) -> list[dict[str, str]]:
    """Everything in a folder that can be segmented."""
    cases: dict[str, Path] = {}
    for kind, prefix in (("volume", ""), ("test-volume", "test-")):
        cases.update({f"{prefix}{case}": path for case, path in sorted(_by_case(folder, files, kind).items())})
    if not cases:
        labels = [
            path for path in files if _LABEL_NAME.search(nifti_stem(path)) or path.parent.name.startswith("labels")
        ]
        if labels:
            logger.warning("%d files are labels by their name and are not segmented: %s ...", len(labels), labels[0])
        others = [path for path in files if path not in labels]
        for path in others:
            name = path.relative_to(folder).with_name(nifti_stem(path)).as_posix().replace("/", "_")
            if name in cases:
                raise DataError(f"{cases[name]} and {path} both claim case {name}: remove or rename one of them.")
            cases[name] = path
        cases = dict(sorted(cases.items(), key=lambda item: natural_key(item[0])))
    if not cases:
        raise DataError(f"{folder} holds no NIfTI volume (.nii or .nii.gz): give the folder of the volumes to segment.")
    return [{"case": case, "image": str(path)} for case, path in cases.items()]


def _decathlon_cases(described: Path, unlabelled: bool) -> list[dict[str, str]]:
    """The cases that a Medical Segmentation Decathlon ``dataset.json`` lists."""
    try:
        content = json.loads(described.read_text(encoding="utf-8"))
        training, test = list(content["training"]), list(content.get("test", []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{described} is not the description of an MSD data set (a JSON object with the list `training`): "
            f"repair or remove it ({error!r})."
        ) from error
    cases: dict[str, dict[str, str]] = {}
    for entry in training:
        image, label = _decathlon_pair(described, entry)
        files = {"image": image} if unlabelled else {"image": image, "label": label}
        _add_case(cases, described, files)
    for entry in test if unlabelled else []:
        _add_case(
            cases, described, {"image": described_file(described, entry["image"] if isinstance(entry, dict) else entry)}
        )
    if not cases:
        raise DataError(f"{described} lists no case: complete it or remove it.")
    return sorted(cases.values(), key=lambda case: natural_key(case["case"]))


def _decathlon_pair(described: Path, entry: Any) -> tuple[str, str]:
    if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
        raise DataError(f"{described} has a training entry without image and label ({entry!r}): complete it.")
    return described_file(described, entry["image"]), described_file(described, entry["label"])


def described_file(described: Path, name: object) -> str:
    """Path of a file that ``dataset.json`` names, compressed or not."""
    path = described.parent / str(name)
    for candidate in (path, Path(f"{path}.gz"), path.with_suffix("") if path.suffix == ".gz" else path):
        if candidate.is_file():
            return str(candidate)
    raise DataError(f"{path} is missing but {described} lists it: restore the file or remove the entry.")


def _add_case(cases: dict[str, dict[str, str]], described: Path, files: dict[str, str]) -> None:
    name = nifti_stem(Path(files["image"]))
    number = re.fullmatch(r"liver_(\d+)", name)
    case = str(int(number[1])) if number else name  # the numbers of LiTS and MSD Task03 name the same patients
    if case in cases:
        raise DataError(f"{described} lists case {case} twice: remove one of the entries.")
    cases[case] = {"case": case, **files}
