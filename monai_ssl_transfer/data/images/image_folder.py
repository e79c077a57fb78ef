"""One folder per class, with or without folders of training, validation and test: ImageNet, brain tumours, and others.

The layout of torchvision's ``ImageFolder``; classes are numbered in the order of their sorted names, as there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case, existing_folder, read_names
from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES
from monai_ssl_transfer.data.images.division import PART, group_images
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_EXPECTED = "a folder with one folder per class, or with train, val and test (Training, Testing) that have them"
_DEEPEST = 3


def folder_classes(dataset_dir: str | Path, chosen: Sequence[str] | str | Path | None = None) -> tuple[str, ...]:
    """Names of the classes of a data set: those of its class folders, sorted.

    Args:
        dataset_dir: folder of class folders, or of parts that have them; then the training part tells.
        chosen: only these classes, in this order: a list, or a text file of one name per line.

    Raises:
        DataError: no class folders, or a chosen class without one.
    """
    parts = _part_folders(existing_folder(dataset_dir, _EXPECTED))
    training = parts.get("train", parts.get("", []))
    found = sorted({path.name for folder in training for path in _class_folders(folder)})
    if not found:
        raise DataError(f"{dataset_dir} holds no folder of a class: give {_EXPECTED}.")
    if chosen is None:
        return tuple(found)
    names = read_names(chosen) if isinstance(chosen, str | Path) else [str(name) for name in chosen]
    unknown = [name for name in names if name not in found]
    if unknown:
        raise DataError(f"chosen_classes names {unknown[0]}, of which {dataset_dir} has no folder: correct the name.")
    return tuple(names)


def folder_cases(
    dataset_dir: str | Path,
    class_names: Sequence[str],
    every_class: bool = True,
    val_is_test: bool = False,
    group_pattern: str | None = None,
    duplicate_threshold: int | None = None,
) -> list[Case]:
    """List the images of a data set with the classes of their folders.

    Args:
        dataset_dir: folder of class folders, or of ``train``/``Training``, ``val``/``valid``/``validation`` and
            ``test``/``Testing`` that have them. A test part without class folders (ImageNet's, whose labels are not
            public) is passed over, and the log says so.
        class_names: the classes; folders of others are left out, and the log names them.
        every_class: refuse a class without any image in the training part (or at all, where there are no parts).
        val_is_test: the validation part is the test, as is usual with ImageNet; validation is drawn from training.
        group_pattern: as for `group_images`, on the path below ``dataset_dir``.
        duplicate_threshold: likewise.

    Returns:
        One dict per image: "name" (path below ``dataset_dir``), "image", "class" (number in ``class_names``), "group",
        and "part" ("train", "validation" or "test") where there are parts.

    Raises:
        DataError: no class folder, a class without image, or a part of unlabelled images.
    """
    root = existing_folder(dataset_dir, _EXPECTED)
    numbers = {name: number for number, name in enumerate(class_names)}
    cases: list[Case] = []
    others: set[str] = set()
    for part, folders in _part_folders(root).items():
        held = "test" if part == "validation" and val_is_test else part
        for folder in _labelled(folders, part):
            for place in _class_folders(folder):
                if place.name not in numbers:
                    others.add(place.name)
                    continue
                number, extra = numbers[place.name], ({PART: held} if held else {})
                cases += [_case(root, file, number) | extra for file in _images(place)]
    if others:
        listed = ", ".join(sorted(others)[:10]) + (", ..." if len(others) > 10 else "")
        logger.warning("%d class folders are none of the classes and are left out: %s", len(others), listed)
    if others and not cases:
        raise DataError(
            f"{root} has the class folders {listed}, and none of the classes {', '.join(class_names)}: "
            "add configs/tasks/image_folder.json, which takes the folders' names, or give them as classes."
        )
    _refuse_empty(root, cases, class_names if every_class else ())
    return group_images(cases, group_pattern, duplicate_threshold)


def _case(root: Path, file: Path, number: int) -> Case:
    return {"name": file.relative_to(root).as_posix(), "image": str(file), "class": number}


def _refuse_empty(root: Path, cases: list[Case], class_names: Sequence[str]) -> None:
    if not cases:
        raise DataError(f"{root} holds no image of a class: give {_EXPECTED}.")
    shown = {case["class"] for case in cases if case.get(PART, "train") == "train"}
    absent = [name for number, name in enumerate(class_names) if number not in shown]
    if absent:
        raise DataError(
            f"{root} has no image of the class {absent[0]} to train on ({len(absent)} such): restore its folder, or "
            "name the classes to use with chosen_classes."
        )


def _part_folders(folder: Path) -> dict[str, list[Path]]:
    """Folders that hold class folders, by part; "" where there are no parts. A single folder within is looked into."""
    for _ in range(_DEEPEST):
        inside = _folders(folder)
        parts: dict[str, list[Path]] = {}
        for path in inside:
            if path.name.lower() in _PARTS:
                parts.setdefault(_PARTS[path.name.lower()], []).append(path)
        if "train" in parts:
            return parts
        if len(inside) != 1 or not _folders(inside[0]):
            break
        folder = inside[0]
    return {"": [folder]}


def _labelled(folders: Sequence[Path], part: str) -> Iterator[Path]:
    for folder in folders:
        if _class_folders(folder):
            yield folder
        elif part == "test":
            logger.warning("%s has no class folders: its images have no labels and are passed over", folder)
        else:
            raise DataError(f"{folder} has no class folders: sort its images into one folder per class.")


def _class_folders(folder: Path) -> list[Path]:
    return _folders(folder)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")) and path.is_dir())


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in FRAME_SUFFIXES)
    visible = (path for path in found if not path.name.startswith(".") and path.is_file())
    return sorted(visible, key=lambda path: natural_key(path.relative_to(folder).as_posix()))
