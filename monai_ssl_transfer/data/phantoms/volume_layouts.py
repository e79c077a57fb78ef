"""Tiny data sets in the layouts of volume tasks, with organs and tumours that can be told apart by their brightness.

They are for tests and for trying the program; nothing is taken from a real scan.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

ORIENTATIONS = ("LAS", "LPS", "RAS")


def layered_volume(seed: int, size: int = 48, slices: int = 10, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A body with one ellipsoid for each class.

    Args:
        seed: the patient.
        size: rows and columns.
        slices: number of slices.
        classes: how many ellipsoids, of label 1 and up.

    Returns:
        (size, size, slices) float32 brightness: 0 outside, 1 the body, 2 and up the classes, with noise inside; and
        the labels, uint8.
    """
    rng = np.random.default_rng(seed)
    y, x, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (size, size, slices)), indexing="ij")
    body = (x / 0.85) ** 2 + (y / 0.7) ** 2 < 1
    labels = np.zeros(body.shape, np.uint8)
    for number in range(classes):
        angle = 2 * np.pi * number / classes + rng.uniform(-0.2, 0.2)
        centre = (0.4 * np.cos(angle), 0.35 * np.sin(angle), rng.uniform(-0.2, 0.2))
        inside = ((x - centre[0]) / 0.25) ** 2 + ((y - centre[1]) / 0.2) ** 2 + ((z - centre[2]) / 0.7) ** 2 < 1
        labels[inside] = number + 1
    image = np.where(body, 1.0 + labels, 0.0) + np.where(body, rng.normal(0, 0.1, body.shape), 0.0)
    return image.astype(np.float32), labels


def save_volume(path: Path, array: np.ndarray, spacing: Sequence[float], orientation: str = "LPS") -> None:
    """Write (rows, columns, slices[, modalities]), rows to posterior and columns to the left, as NIfTI.

    Args:
        path: ``.nii`` or ``.nii.gz`` file.
        array: voxels.
        spacing: mm of rows, columns and slices.
        orientation: axis codes of the file.
    """
    change = orientations.ornt_transform(orientations.axcodes2ornt("PLS"), orientations.axcodes2ornt(orientation))
    base = np.array([[0, -spacing[1], 0, 40], [-spacing[0], 0, 0, 30], [0, 0, spacing[2], -20], [0, 0, 0, 1]], float)
    affine = base @ orientations.inv_ornt_aff(change, array.shape[:3])
    image = nib.Nifti1Image(np.ascontiguousarray(orientations.apply_orientation(array, change)), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_msd_layout(
    folder: str | Path,
    cases: int = 4,
    modalities: Sequence[str] = ("CT",),
    classes: Sequence[str] = ("liver", "spleen"),
    name: str = "case",
    size: int = 48,
) -> Path:
    """Write a task of the Medical Segmentation Decathlon, also in the way of AMOS (``name="amos"``).

    Args:
        folder: where to write.
        cases: how many patients.
        modalities: as ``dataset.json`` names them; several make four-dimensional images, "CT" is in HU.
        classes: names of the labels 1 and up.
        name: what the files' names start with.
        size: rows and columns.

    Returns:
        The folder.
    """
    folder, training = Path(folder), []
    for number in range(1, cases + 1):
        image, labels = layered_volume(number, size, classes=len(classes))
        shown = [_seen_by(image, modality, position) for position, modality in enumerate(modalities)]
        array = np.stack(shown, axis=-1) if len(shown) > 1 else shown[0]
        file, orientation = f"{name}_{number:04d}.nii.gz", ORIENTATIONS[number % 3]
        save_volume(folder / "imagesTr" / file, array, (3.0, 3.5, 5.0), orientation)
        save_volume(folder / "labelsTr" / file, labels, (3.0, 3.5, 5.0), orientation)
        training.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    content = {
        "name": "phantom",
        "modality": {str(number): one for number, one in enumerate(modalities)},
        "labels": {"0": "background"} | {str(number): one for number, one in enumerate(classes, 1)},
        "training": training,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder


def write_btcv_layout(folder: str | Path, cases: int = 3, classes: int = 13) -> Path:
    """Write ``Training/img/img0001.nii.gz`` and ``Training/label/label0001.nii.gz`` of BTCV."""
    folder = Path(folder)
    for number in range(1, cases + 1):
        image, labels = layered_volume(number, classes=classes)
        save_volume(folder / "Training" / "img" / f"img{number:04d}.nii.gz", _seen_by(image, "CT", 0), (3, 3, 5))
        save_volume(folder / "Training" / "label" / f"label{number:04d}.nii.gz", labels, (3, 3, 5))
    return folder


def write_brats_layout(folder: str | Path, cases: int = 4, year: int = 2020) -> Path:
    """Write BraTS: a folder per case with four modalities and a label of 1, 2 and 4 (from 2023: 3), one in another.

    Args:
        folder: where to write.
        cases: how many; from 2023 two visits of each patient.
        year: 2020 or 2023, which name their files differently.
    """
    folder, new = Path(folder), year >= 2023
    endings = ("t1n", "t1c", "t2w", "t2f") if new else ("t1", "t1ce", "t2", "flair")
    enhancing = 3 if new else 4
    for number in range(cases):
        image, _ = layered_volume(number, classes=0)
        size, _, slices = image.shape
        y, x, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (size, size, slices)), indexing="ij")
        distance = np.sqrt((x - 0.1) ** 2 + (y + 0.05 * number) ** 2 + (0.4 * z) ** 2)
        labels = np.select([distance < 0.15, distance < 0.3, distance < 0.45], [enhancing, 1, 2], 0).astype(np.uint8)
        name = f"BraTS-GLI-{number // 2:05d}-{number % 2:03d}" if new else f"BraTS20_Training_{number + 1:03d}"
        mark = "-" if new else "_"
        for position, ending in enumerate(endings):
            shown = (image * 100 + labels * 15 * (position + 1) * (image > 0)).astype(np.int16)
            save_volume(folder / name / f"{name}{mark}{ending}.nii.gz", shown, (1, 1, 1), "LPS")
        save_volume(folder / name / f"{name}{mark}seg.nii.gz", labels, (1, 1, 1), "LPS")
    return folder


def _seen_by(image: np.ndarray, modality: str, position: int) -> np.ndarray:
    """HU of a CT; else whole numbers on a scale of the scanner's own."""
    if modality.upper() == "CT":
        return np.where(image > 0, -80 + 50 * image, -1000).astype(np.int16)
    return np.where(image > 0, np.maximum((200 + 60 * position) * image, 1), 0).astype(np.int16)
