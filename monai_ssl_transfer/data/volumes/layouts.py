"""Layouts of public data sets of volumes: which files belong to a case, without opening a voxel.

| layout | files |
|---|---|
| msd | ``dataset.json`` with "training" (image and label of each case); a file may hold several modalities |
| amos | the same, with "validation"; cases up to 500 are CT, those above are MR |
| btcv | ``img/img0001.nii.gz`` and ``label/label0001.nii.gz`` (Abdomen/RawData/Training) |
| brats | a folder per case with ``<case>_t1``, ``_t1ce``, ``_t2``, ``_flair`` and ``_seg`` (2023: ``-t1n`` and so on) |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_ssl_transfer.data.ct.layouts import described_file, liver_cases, nifti_files, nifti_stem
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.data.volumes.description import Description, read_description
from monai_ssl_transfer.errors import DataError

Case = dict[str, Any]
BRATS_NAMES = {
    "t1": ("t1", "t1n"),
    "t1ce": ("t1ce", "t1c", "t1gd"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f"),
    "seg": ("seg",),
}
"""Endings of the files of BraTS up to 2021, and from 2023."""
_AMOS_LAST_CT = 500
_BTCV = re.compile(r"(?P<kind>img|label)(?P<case>\d+)")
_BRATS = re.compile(r"(?P<case>.+)[-_](?P<ending>[a-z0-9]+)", re.IGNORECASE)
_BRATS_VISIT = re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d+)-\d+")


def labelled_cases(
    dataset_dir: str | Path,
    layout: str,
    modalities: Sequence[str] | None = None,
    modality: str | None = None,
) -> list[Case]:
    """List the labelled cases of a data set.

    Args:
        dataset_dir: folder of the data set.
        layout: "msd", "amos", "btcv" or "brats".
        modalities: of BraTS, in the order of the network's channels.
        modality: of AMOS, "CT" or "MR".

    Returns:
        ``{"case": name, "image": path or paths, "label": path}`` each, in natural order; also "patient" where several
        cases are of one, and "part" where the data set names its validation.

    Raises:
        DataError: no such folder or layout, no case, or a missing file.
    """
    folder = Path(dataset_dir)
    if layout not in _LAYOUTS:
        raise DataError(f"layout is {layout!r}: choose one of {', '.join(_LAYOUTS)}.")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder of a data set in the layout {layout}.")
    cases = _LAYOUTS[layout](folder, modalities, modality)
    if not cases:
        raise DataError(f"{folder} holds no labelled case in the layout {layout}: give the folder of such a data set.")
    return sorted(cases, key=lambda case: natural_key(case["case"]))


def volumes_to_segment(dataset_dir: str | Path, layout: str, modalities: Sequence[str] | None = None) -> list[Case]:
    """List what can be segmented: BraTS by its folders, every other layout by its NIfTI files or ``dataset.json``.

    Raises:
        DataError: there is nothing, or a modality of a case is missing.
    """
    folder = Path(dataset_dir)
    if layout != "brats":
        return liver_cases(folder, unlabelled=True)
    found = _brats_files(folder)
    if not found:
        raise DataError(f"{folder} holds no BraTS case: give the folder of the cases' folders.")
    return [{"case": case, "image": _brats_images(case, files, modalities)} for case, files in found.items()]


def _described_cases(description: Description) -> list[Case]:
    """The entries of "training" and, where it has labels, of "validation"."""
    cases: dict[str, Case] = {}
    for part in ("training", "validation"):
        for entry in description.parts[part]:
            if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
                if part == "validation":  # AMOS lists images without labels in its first release
                    continue
                raise DataError(
                    f"{description.file} has a training entry without image and label ({entry!r}): complete it."
                )
            image, label = (described_file(description.file, entry[key]) for key in ("image", "label"))
            name = nifti_stem(Path(image))
            if name in cases:
                raise DataError(f"{description.file} lists case {name} twice: remove one of the entries.")
            cases[name] = {"case": name, "image": image, "label": label}
            if part == "validation":
                cases[name]["part"] = part
    return list(cases.values())


def _msd(folder: Path, modalities: Sequence[str] | None, modality: str | None) -> list[Case]:
    return _described_cases(read_description(folder))


def _amos(folder: Path, modalities: Sequence[str] | None, modality: str | None) -> list[Case]:
    if modality not in ("CT", "MR"):
        raise DataError(f"modality is {modality!r}: choose CT (AMOS cases up to 500) or MR (those above).")
    chosen = []
    for case in _described_cases(read_description(folder)):
        number = re.search(r"(\d+)$", case["case"])
        if number is None:
            raise DataError(f"{case['image']} has no number, which tells CT from MR in AMOS: restore its name.")
        if (int(number[1]) <= _AMOS_LAST_CT) == (modality == "CT"):
            chosen.append(case)
    return chosen


def _btcv(folder: Path, modalities: Sequence[str] | None, modality: str | None) -> list[Case]:
    found: dict[str, dict[str, Path]] = {"img": {}, "label": {}}
    for path in sorted(nifti_files(folder)):
        match = _BTCV.fullmatch(nifti_stem(path))
        if match is None or path.parent.name != match["kind"]:
            continue
        if match["case"] in found[match["kind"]]:
            other = found[match["kind"]][match["case"]]
            raise DataError(f"{other} and {path} both claim case {match['case']}: remove or rename one of them.")
        found[match["kind"]][match["case"]] = path
    lone = [path for case, path in found["label"].items() if case not in found["img"]]
    if lone:
        raise DataError(f"{lone[0]} has no img{lone[0].name.removeprefix('label')} in an img folder: add the image.")
    tested = {case for case, path in found["img"].items() if "Testing" in path.parts}
    for case, path in found["img"].items():
        if case not in found["label"] and case not in tested:
            raise DataError(f"{path} has no label{case}.nii.gz in a label folder: add the label or remove the image.")
    return [
        {"case": case, "image": str(found["img"][case]), "label": str(label)} for case, label in found["label"].items()
    ]


def _brats(folder: Path, modalities: Sequence[str] | None, modality: str | None) -> list[Case]:
    cases = []
    for name, files in _brats_files(folder).items():
        if "seg" not in files:
            raise DataError(f"{files[min(files)].parent} has no {name}_seg.nii.gz: add the label or remove the folder.")
        visit = _BRATS_VISIT.fullmatch(name)
        case: Case = {"case": name, "image": _brats_images(name, files, modalities), "label": str(files["seg"])}
        cases.append(case | ({"patient": visit["patient"]} if visit else {}))
    return cases


def _brats_files(folder: Path) -> dict[str, dict[str, Path]]:
    """Files by case and by what they show."""
    kinds = {ending: kind for kind, endings in BRATS_NAMES.items() for ending in endings}
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(nifti_files(folder), key=lambda one: natural_key(str(one))):
        match = _BRATS.fullmatch(nifti_stem(path))
        kind = kinds.get(match["ending"].lower()) if match else None
        if match is None or kind is None:
            continue
        files = found.setdefault(match["case"], {})
        if kind in files:
            raise DataError(f"{files[kind]} and {path} are both the {kind} of {match['case']}: remove one of them.")
        files[kind] = path
    return found


def _brats_images(case: str, files: dict[str, Path], modalities: Sequence[str] | None) -> str | list[str]:
    wanted = list(modalities or [kind for kind in BRATS_NAMES if kind != "seg"])
    for kind in wanted:
        if kind not in BRATS_NAMES or kind == "seg":
            raise DataError(f"BraTS has no modality {kind!r}: choose among t1, t1ce, t2 and flair.")
        if kind not in files:
            raise DataError(
                f"{files[min(files)].parent} lacks the {kind} image of {case}: add it, or leave it out of modalities."
            )
    chosen = [files[kind] for kind in wanted]
    _check_same_grid(chosen)
    return [str(path) for path in chosen] if len(chosen) > 1 else str(chosen[0])


def _check_same_grid(files: Sequence[Path]) -> None:
    """Refuse modalities of other shape or place than the first; only headers are read."""
    headers = []
    for path in files:
        try:
            image: Any = nibabel.load(path)  # type: ignore[attr-defined]
            headers.append((image.shape, np.asarray(image.affine)))
        except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
            raise DataError(f"{path} is damaged or cut short: copy or download it again.") from error
    for path, (shape, affine) in zip(files, headers, strict=True):
        if shape != headers[0][0] or not np.allclose(affine, headers[0][1], atol=1e-2):
            raise DataError(f"{path} is not on the grid of {files[0]}: register the modalities of a case first.")


_LAYOUTS: dict[str, Callable[[Path, Sequence[str] | None, str | None], list[Case]]] = {
    "msd": _msd,
    "amos": _amos,
    "btcv": _btcv,
    "brats": _brats,
}
