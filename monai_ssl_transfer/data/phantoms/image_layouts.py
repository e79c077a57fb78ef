"""Small generated images in the layouts of public sets: class folders, ChestX-ray14, lungs with masks, SARS-CoV-2 CT.

No anatomy: bright shapes on a noisy ground, so that layouts, splits and training can be tried without any data.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from monai_ssl_transfer.data.images.chest_xray14 import NO_FINDING, finding_names
from monai_ssl_transfer.data.phantoms.endoscopy_files import random_stream

_PARTS = ("Training", "Testing")


def write_image_folder(
    out: str | Path,
    classes: Sequence[str] = ("glioma", "meningioma", "notumor", "pituitary"),
    images_per_class: int = 6,
    parts: Sequence[str] = _PARTS,
    size: int = 48,
    seed: int = 0,
) -> Path:
    """Write grey JPEG images in a folder per class; a class has a square at its own place.

    Args:
        out: folder, made if it does not exist.
        classes: names of the folders.
        images_per_class: in every part.
        parts: folders above the classes; none for class folders alone.
        size: rows and columns.
        seed: everything follows from it.
    """
    out = Path(out)
    for part in parts or ("",):
        for number, name in enumerate(classes):
            folder = out / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for one in range(images_per_class):
                rng = random_stream(seed, part, name, one)
                Image.fromarray(_marked(rng, size, [number])).save(folder / f"{name}_{one}.jpg", quality=92)
    return out


def write_chest_xray14(
    out: str | Path, patients: int = 30, images_per_patient: int = 2, archives: int = 2, size: int = 48, seed: int = 0
) -> Path:
    """Write radiographs of up to three findings in ChestX-ray14's layout; a fifth of the patients is the official test.

    Of 16 bits every second one, of which 12 are used. Every finding is shown to patients of both official lists from
    140 patients on, and to some patient from 14 on.

    Args:
        out: folder, made if it does not exist.
        patients: how many.
        images_per_patient: follow-ups.
        archives: folders ``images_001`` and so on.
        size: rows and columns.
        seed: everything follows from it.
    """
    out, names = Path(out), finding_names()
    rows: list[list[str | int]] = []
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    for patient in range(patients):
        rng = random_stream(seed, "patient", patient)
        shown = {patient % len(names)} | set(rng.choice(len(names), rng.integers(0, 3), replace=False).tolist())
        for follow_up in range(images_per_patient):
            name = f"{patient + 1:08d}_{follow_up:03d}.png"
            found = sorted(shown) if follow_up % 2 == 0 else []
            label = "|".join(names[one] for one in found) or NO_FINDING
            rows.append([name, label, follow_up, patient + 1, 40 + patient % 40, "M", "PA"])
            lists["test_list.txt" if patient % 5 == 4 else "train_val_list.txt"].append(name)
            folder = out / f"images_{patient % archives + 1:03d}" / "images"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = _marked(rng, size, found)
            deep = pixels.astype(np.uint16) * np.uint16(16)
            Image.fromarray(deep if follow_up % 2 else pixels).save(folder / name)
    with (out / "Data_Entry_2017.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        head = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
        writer.writerows([[*head, "View Position"], *rows])
    for file, listed in lists.items():
        (out / file).write_text("".join(f"{name}\n" for name in listed))
    return out


def write_montgomery(out: str | Path, images: int = 12, size: int = 48, seed: int = 0) -> Path:
    """Write two lungs per image with a mask each, as the Montgomery County set has them.

    Args:
        out: folder, made if it does not exist.
        images: one per patient; every second one is called sick.
        size: rows and columns; images are a little wider.
        seed: everything follows from it.
    """
    out = Path(out)
    for number in range(images):
        pixels, left, right = _lungs(random_stream(seed, "montgomery", number), size)
        name = f"MCUCXR_{number + 1:04d}_{number % 2}.png"
        _save(out / "CXR_png" / name, pixels)
        _save(out / "ManualMask" / "leftMask" / name, left)
        _save(out / "ManualMask" / "rightMask" / name, right)
    return out


def write_shenzhen(out: str | Path, images: int = 12, unmasked: int = 2, size: int = 48, seed: int = 0) -> Path:
    """Write two lungs per image with one mask, as the Shenzhen set has them; the last images have no mask.

    Args:
        out: folder, made if it does not exist.
        images: one per patient; every second one is called sick.
        unmasked: images without a mask.
        size: rows and columns; images are a little wider.
        seed: everything follows from it.
    """
    out = Path(out)
    for number in range(images):
        pixels, left, right = _lungs(random_stream(seed, "shenzhen", number), size)
        name = f"CHNCXR_{number + 1:04d}_{number % 2}"
        _save(out / "CXR_png" / f"{name}.png", pixels)
        if number < images - unmasked:
            _save(out / "mask" / f"{name}_mask.png", left | right)
    return out


def write_sars_cov2_ct(
    out: str | Path, patients: int = 6, slices: int = 3, size: int = 48, seed: int = 0, folders: bool = True
) -> Path:
    """Write slices in the layouts of the SARS-CoV-2 CT sets.

    Args:
        out: folder, made if it does not exist.
        patients: of each class.
        slices: of each patient.
        size: rows and columns.
        seed: everything follows from it.
        folders: ``Covid``, ``Healthy`` and ``Others`` with a folder per patient; False gives ``COVID`` and
            ``non-COVID`` without patients.
    """
    out = Path(out)
    for number, name in enumerate(("Covid", "Healthy", "Others") if folders else ("COVID", "non-COVID")):
        for patient in range(patients):
            rng = random_stream(seed, name, patient)
            for one in range(slices):
                inside = (
                    f"Patient ({patient + 1})/{one}.png" if folders else f"{name} ({patient * slices + one + 1}).png"
                )
                _save(out / name / inside, _marked(rng, size, [0] if number == 0 else [3]))
    return out


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _marked(rng: np.random.Generator, size: int, marks: Sequence[int]) -> np.ndarray:
    """(size, size) uint8: coarse noise and a bright square at the place of every mark, of which there are 16."""
    coarse = rng.integers(20, 120, (8, 8), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR)).copy()
    side = size // 4
    for mark in marks:
        top, left = mark // 4 * side, mark % 4 * side
        image[top + 1 : top + side - 1, left + 1 : left + side - 1] = 230
    return image


def _lungs(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A radiograph (size, 5/4 size) uint8 of two dark ellipses, and the mask of each, 0 and 255."""
    columns = size * 5 // 4
    y, x = np.indices((size, columns))
    noise = rng.integers(120, 200, (6, 8), dtype=np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((columns, size), Image.Resampling.BILINEAR)).copy()
    masks = []
    for side in (0.3, 0.7):
        centre = (size * rng.uniform(0.45, 0.55), columns * (side + rng.uniform(-0.03, 0.03)))
        inside = ((y - centre[0]) / (0.3 * size)) ** 2 + ((x - centre[1]) / (0.14 * columns)) ** 2 < 1
        image[inside] = rng.integers(20, 60)
        masks.append(inside.astype(np.uint8) * np.uint8(255))
    return image, masks[0], masks[1]
