"""The images whose features are looked at: drawn evenly from patients, with patient, class and name each."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES
from monai_ssl_transfer.data.endoscopy.video import VIDEO_SUFFIXES
from monai_ssl_transfer.data.file_listing import list_files
from monai_ssl_transfer.data.folder_store import StoredImages, stored_images
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.data.store_format import HEADER_FILE
from monai_ssl_transfer.engines.embedding.rows import ImageRows
from monai_ssl_transfer.errors import DataError

LABELS = ("body_part", "class", "folder", "none")
"""Where classes come from beside a table: of the ingest, of the store's labels, or from the name of the folder."""


@dataclass(frozen=True)
class ChosenImages:
    """Images in the order in which they are looked at, which is random.

    Args:
        store: where they are.
        numbers: (N,) in the store.
        names: N names, of their files where a folder was given.
        groups: N patients, or whatever the ingest took for one.
        labels: N classes, "" where an image has none; () where there are none at all.
        labels_from: what the classes are, for readers.
        total: images in the store.
    """

    store: SliceStore
    numbers: np.ndarray
    names: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...] = ()
    labels_from: str = ""
    total: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def photographs(self) -> bool:
        """Whether the images are photographs, not CT slices."""
        return self.store.pixels == "rgb"


def open_images(
    path: Path, out: Path, pixels: str = "", group_pattern: str | None = None, workers: int = 1
) -> StoredImages:
    """Open a slice store, or read a folder into a temporary one below `out`.

    Args:
        path: store, folder or file.
        out: folder of the report; what was not used is listed there in ``images_refused.csv``.
        pixels: "hu" or "rgb"; "" looks at the files.
        group_pattern: of a folder of photographs, see ``ssl-transfer ingest frames``.
        workers: processes that read a folder.

    Raises:
        DataError: nothing there that can be read, or CT beside photographs.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: give a slice store, or a folder of scans or photographs.")
    kind = SliceStore(path).pixels if (path / HEADER_FILE).exists() else pixels or _kind_of(path)
    options = {"group_pattern": group_pattern} if group_pattern else {}
    if options and kind == "hu":
        raise DataError("--group-pattern is for folders of photographs: patients of CT stand in its files.")
    return stored_images(path, kind, out / ".temporary_store", out / "images_refused.csv", workers, **options)


def _kind_of(path: Path) -> str:
    """What a folder holds, by the ends of its files' names; files without a known end are taken for DICOM."""
    names = [name.lower() for name in list_files(path, [])[0]]
    photographs = sum(name.endswith((*FRAME_SUFFIXES, *VIDEO_SUFFIXES)) for name in names)
    scans = sum(name.endswith((".nii", ".nii.gz", ".dcm")) for name in names)
    if photographs and scans:
        raise DataError(f"{path} holds CT and photographs: say which by --pixels hu or --pixels rgb.")
    return "rgb" if photographs else "hu"


def choose_images(images: StoredImages, count: int, labels: str = "", seed: int = 0) -> ChosenImages:
    """Draw images evenly from patients, and find their classes.

    Args:
        images: of `open_images`.
        count: at most so many; 0 takes all.
        labels: one of `LABELS`, or a CSV file with a header whose first column is an image's or series' name or file
            and whose second is its class; "" takes the store's classes or body parts if there are two at least.
        seed: of the draw and the order.

    Raises:
        DataError: fewer than 4 images, or classes that cannot be had.
    """
    random = np.random.Generator(np.random.Philox(seed))
    numbers = draw_evenly(images.store.patient_numbers(), count, random)
    if len(numbers) < 4:
        raise DataError(f"{images.store.path} has {len(numbers)} images: features are compared over at least 4.")
    rows = ImageRows(images)
    columns = rows.add(numbers, np.empty((len(numbers), 0)))[0]
    chosen = ChosenImages(images.store, numbers, tuple(columns["id"]), tuple(columns["group"]), total=len(images.store))
    found, described = _labels(columns, labels)
    if labels in ("", "none") and len(set(found) - {""}) < 2:
        return chosen
    if len(set(found) - {""}) < 2:
        raise DataError(f"--labels {labels}: the images have fewer than two classes; give a table, or leave it out.")
    return replace(chosen, labels=tuple(found), labels_from=described)


def draw_evenly(patients: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Positions of at most `count` images, as many of each patient as of the next while they last, in random order.

    Args:
        patients: (N,) patient of each image.
        count: 0 takes all.
        random: of the draw.
    """
    order = random.permutation(len(patients))
    if not 0 < count < len(order):
        return order
    seen: Counter[int] = Counter()
    turns = np.empty(len(order), dtype=np.int64)
    for place, patient in enumerate(patients[order].tolist()):
        turns[place] = seen[patient]
        seen[patient] += 1
    return order[np.sort(np.argsort(turns, kind="stable")[:count])]


def _labels(columns: dict[str, list[Any]], labels: str) -> tuple[list[str], str]:
    """Class of each image, "" for none, and what the classes are."""
    if labels == "folder":
        files = columns["file"]
        if None in files:
            raise DataError("--labels folder needs the folder itself: a store does not know the names of its files.")
        return [PurePosixPath(file).parent.name for file in files], "name of the folder"
    if labels not in ("", *LABELS):
        return _from_table(columns, Path(labels)), f"{Path(labels).name}"
    known = {"class": "label", "body_part": "body_part"}
    for name in [labels] if labels in known else ["class", "body_part"] if not labels else []:
        found = [value or "" for value in columns.get(known[name], [])]
        if labels or len(set(found) - {""}) > 1:
            return found, name.replace("_", " ")
    return [""] * len(columns["id"]), ""


def _from_table(columns: dict[str, list[Any]], file: Path) -> list[str]:
    try:
        lines = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))[1:]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        known = ", ".join(LABELS)
        raise DataError(
            f"{file} cannot be read as a table ({error}): give a CSV of name and class, or {known}."
        ) from error
    table = {line[0].strip(): line[1].strip() for line in lines if len(line) > 1}
    keys = [columns[name] for name in ("id", "file", "series", "group") if name in columns]
    found = [_first(table, names) for names in zip(*keys, strict=True)]
    if not any(found):
        raise DataError(f"{file} names none of the images, such as {columns['id'][0]}: give their names as printed.")
    return found


def _first(table: dict[str, str], names: Sequence[str | None]) -> str:
    return next((table[name] for name in names if name in table), "")
