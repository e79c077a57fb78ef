"""HyperKvasir's labelled images on disk: anatomical landmarks and pathological findings, by class folder."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import (
    Case,
    existing_folder,
    group_near_duplicates,
    list_frames,
    refuse_unknown,
    subfolders,
)
from monai_ssl_transfer.data.endoscopy.near_duplicates import DUPLICATE_THRESHOLD
from monai_ssl_transfer.errors import DataError

_CLASSES = {
    "landmarks": ("cecum", "ileum", "pylorus", "retroflex-rectum", "retroflex-stomach", "z-line"),
    "findings": (
        "barretts",
        "barretts-short-segment",
        "esophagitis-a",
        "esophagitis-b-d",
        "hemorrhoids",
        "polyps",
        "ulcerative-colitis-grade-0-1",
        "ulcerative-colitis-grade-1",
        "ulcerative-colitis-grade-1-2",
        "ulcerative-colitis-grade-2",
        "ulcerative-colitis-grade-2-3",
        "ulcerative-colitis-grade-3",
    ),
}
_BRANCHES = {"landmarks": "anatomical-landmarks", "findings": "pathological-findings"}
_TRACTS = ("lower-gi-tract", "upper-gi-tract")
_OTHER_CLASSES = ("bbps-0-1", "bbps-2-3", "impacted-stool", "dyed-lifted-polyps", "dyed-resection-margins")

# Folder tree and image-labels.csv against the official split files and the challenges that reuse the images.
_OTHER_SPELLINGS = {
    "hemorroids": "hemorrhoids",
    "polyp": "polyps",
    "normal-cecum": "cecum",
    "normal-pylorus": "pylorus",
    "normal-z-line": "z-line",
    "oesophagitis-a": "esophagitis-a",
    "oesophagitis-b-d": "esophagitis-b-d",
    "short-segment-barretts": "barretts-short-segment",
    **{
        f"ulcerative-colitis-{grade}": f"ulcerative-colitis-grade-{grade}"
        for grade in ("0-1", "1", "1-2", "2", "2-3", "3")
    },
}
_NAME_COLUMNS = ("file-name", "video file", "image file", "filename")
_CLASS_COLUMNS = ("class-name", "finding", "class")
_FOLD_COLUMNS = ("split-index", "fold")
_EXPECTED = "HyperKvasir's folder labeled-images, with lower-gi-tract and upper-gi-tract"


@dataclass(frozen=True)
class ListedImage:
    """A row of ``image-labels.csv`` or of an official split file.

    Args:
        finding: class in the spelling of the folder tree.
        fold: part of the split; None in a file without.
    """

    finding: str
    fold: int | None


def class_names(task: str = "landmarks") -> tuple[str, ...]:
    """Names of the classes of a task, in the order of their numbers, spelled as HyperKvasir's folders.

    Args:
        task: "landmarks" (6 classes) or "findings" (12 classes).

    Raises:
        DataError: unknown task.
    """
    if task not in _CLASSES:
        raise DataError(f"the task '{task}' is unknown: choose one of {', '.join(_CLASSES)}.")
    return _CLASSES[task]


def finding_cases(
    dataset_dir: str | Path,
    task: str = "landmarks",
    split_file: str | Path | None = None,
    duplicate_threshold: int | None = DUPLICATE_THRESHOLD,
) -> list[Case]:
    """List the images of one branch of HyperKvasir's labelled tree with their classes.

    Where ``image-labels.csv`` lies beside the tree, both must tell the same; other spellings of a class
    (``hemorroids``, ``normal-cecum``, ``oesophagitis-a``, ...) are understood in folders and lists alike.

    Args:
        dataset_dir: HyperKvasir's folder, or its ``labeled-images``.
        task: "landmarks" or "findings".
        split_file: ``2_fold_split.csv`` or ``5_fold_split.csv`` of simula/hyper-kvasir; adds "fold" to every case.
        duplicate_threshold: bits of 256 in which the hashes of two images of one group differ at most (the set names
            no patients); None makes every image its own group.

    Returns:
        One dict per image, by class and name: "name", "image", "label" and "class" (number of the class in
        `class_names`), "group", and "fold" where there is a split file.

    Raises:
        DataError: a class folder is empty, missing, doubled or unknown, or a list contradicts the tree.
    """
    classes = class_names(task)
    tree = _labelled_tree(existing_folder(dataset_dir, _EXPECTED))
    cases = _listed_cases(_class_folders(tree, task), classes)
    described = tree / "image-labels.csv"
    if described.is_file():
        _check_against(described, _read_list(described), cases, classes)
    if split_file is not None:
        rows = _read_list(Path(split_file))
        _check_against(Path(split_file), rows, cases, classes)
        if any(rows[case["name"]].fold is None for case in cases):
            raise DataError(f"{split_file} has no column split-index: give 2_fold_split.csv or 5_fold_split.csv.")
        cases = [{**case, "fold": rows[case["name"]].fold} for case in cases]
    return group_near_duplicates(cases, duplicate_threshold)


def _labelled_tree(folder: Path) -> Path:
    for place in subfolders(folder, 2):
        if any((place / tract).is_dir() for tract in _TRACTS):
            return place
    raise DataError(f"{folder} holds neither lower-gi-tract nor upper-gi-tract: give {_EXPECTED}.")


def _class_folders(tree: Path, task: str) -> dict[str, Path]:
    """Folder of every class of a task."""
    found: dict[str, Path] = {}
    for tract in _TRACTS:
        branch = tree / tract / _BRANCHES[task]
        for path in sorted(branch.iterdir()) if branch.is_dir() else ():
            if path.name.startswith(".") or not path.is_dir():
                continue
            name = _in_tree_spelling(path.name)
            if name not in _CLASSES[task]:
                known = ", ".join(_CLASSES[task])
                raise DataError(f"{path} is no class of the task {task} ({known}): rename or remove the folder.")
            if name in found:
                raise DataError(f"{found[name]} and {path} are the same class: merge the two folders.")
            found[name] = path
    missing = [name for name in _CLASSES[task] if name not in found]
    if missing:
        raise DataError(
            f"{tree} lacks the class folder {missing[0]} of the task {task} ({len(missing)} missing in all): "
            "restore the data set, for a network would never learn the class."
        )
    return found


def _listed_cases(folders: dict[str, Path], classes: tuple[str, ...]) -> list[Case]:
    cases: list[Case] = []
    places: dict[str, str] = {}
    for number, finding in enumerate(classes):
        images = list_frames(folders[finding])
        if not images:
            raise DataError(f"{folders[finding]} holds no image: restore the images of this class.")
        for name, path in images.items():
            if name in places:
                raise DataError(f"{places[name]} and {path} are the same image in two classes: keep one of them.")
            places[name] = str(path)
            cases.append({"name": name, "image": str(path), "label": number, "class": number})
    return cases


def _check_against(file: Path, rows: dict[str, ListedImage], cases: list[Case], classes: tuple[str, ...]) -> None:
    """Refuse a list and a tree that contradict each other in the classes of a task."""
    refuse_unknown(
        [name for name, row in rows.items() if row.finding in classes], [c["name"] for c in cases], file, "image"
    )
    for case in cases:
        row = rows.get(case["name"])
        if row is None:
            raise DataError(f"{case['image']} is not listed in {file}: give the list that belongs to these images.")
        if row.finding != classes[case["label"]]:
            raise DataError(
                f"{case['image']} is {row.finding} in {file} but lies in the folder of {classes[case['label']]}: "
                "move the image or correct the list."
            )


def _read_list(file: Path) -> dict[str, ListedImage]:
    """Rows of a list of images, by name; separated by ``;`` (split files) or ``,`` (``image-labels.csv``)."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a table ({error}): give a file of HyperKvasir.") from error
    header = lines[0] if lines else ""
    reader = csv.DictReader(lines, delimiter=";" if ";" in header else ",")
    columns = {column.strip().lower(): column for column in reader.fieldnames or ()}
    name_column = next((columns[one] for one in _NAME_COLUMNS if one in columns), None)
    class_column = next((columns[one] for one in _CLASS_COLUMNS if one in columns), None)
    fold_column = next((columns[one] for one in _FOLD_COLUMNS if one in columns), None)
    if name_column is None or class_column is None:
        raise DataError(
            f"{file} has no columns file-name and class-name ({header[:80]!r}): give a file of HyperKvasir."
        )
    rows: dict[str, ListedImage] = {}
    for line, row in enumerate(reader, start=2):
        name = Path((row[name_column] or "").strip()).name
        name = Path(name).stem if Path(name).suffix.lower() in (".jpg", ".jpeg", ".png") else name
        fold = (row[fold_column] or "").strip() if fold_column else None
        finding = _in_tree_spelling((row[class_column] or "").strip())
        if not name or (fold is not None and not (fold.isascii() and fold.isdigit())):
            raise DataError(f"{file} has no image or no number of a fold in line {line}: correct the line.")
        if not any(finding in known for known in (*_CLASSES.values(), _OTHER_CLASSES)):
            raise DataError(f"{file} names the unknown class '{row[class_column]}' in line {line}: correct the line.")
        if name in rows:
            raise DataError(f"{file} lists {name} twice (line {line}): keep one of the lines.")
        rows[name] = ListedImage(finding, None if fold is None else int(fold))
    return rows


def _in_tree_spelling(name: str) -> str:
    plain = name.strip().lower().replace("_", "-").replace(" ", "-")
    return _OTHER_SPELLINGS.get(plain, plain)
