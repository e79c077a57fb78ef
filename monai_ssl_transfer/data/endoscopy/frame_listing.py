"""Which photographs a folder holds, which mask belongs to which, and which of them show the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES
from monai_ssl_transfer.data.endoscopy.near_duplicates import HASH_BITS, near_duplicate_groups
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

Case = dict[str, Any]


def existing_folder(dataset_dir: str | Path, what: str) -> Path:
    """The folder of a data set, as a path.

    Raises:
        DataError: there is no such folder; the message says ``what`` is expected there.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give {what}.")
    return folder


def subfolders(folder: Path, depth: int) -> Iterator[Path]:
    """A folder and its visible folders down to a depth, in natural order, parents first."""
    yield folder
    if depth:
        inside = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for path in sorted(inside, key=lambda path: natural_key(path.name)):
            yield from subfolders(path, depth - 1)


def list_frames(folder: Path, key: Callable[[str], str] = str) -> dict[str, Path]:
    """Photographs (or masks) directly in a folder, in natural order.

    Args:
        folder: where they are; hidden files (macOS's ``._`` companions) and files of other kinds are left out.
        key: makes the name of a case from a file's stem.

    Returns:
        File by name.

    Raises:
        DataError: two files claim one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if path.name.startswith(".") or path.suffix.lower() not in FRAME_SUFFIXES or not path.is_file():
            continue
        name = key(path.stem)
        if name in found:
            raise DataError(f"{found[name]} and {path} both claim case {name}: remove or rename one of them.")
        found[name] = path
    return found


def refuse_unpaired(images: dict[str, Path], partners: dict[str, Path], folder: Path, kind: str = "mask") -> None:
    """Refuse a photograph without its mask and a mask without its photograph.

    Args:
        images: photograph by name.
        partners: mask by name.
        folder: where the masks are expected, for the message.
        kind: what the partner is called.

    Raises:
        DataError: naming the first file without a partner and how many more there are.
    """
    for files, others, missing, place in (
        (images, partners, kind, folder),
        (partners, images, "photograph", next(iter(images.values())).parent if images else folder.parent),
    ):
        alone = [path for name, path in files.items() if name not in others]
        if alone:
            more = f" (nor have {len(alone) - 1} others)" if len(alone) > 1 else ""
            raise DataError(f"{alone[0]} has no {missing} in {place}{more}: add the {missing} or remove the file.")


def read_names(file: str | Path) -> list[str]:
    """Names of cases from a text file: one per line, with or without the suffix of a photograph.

    Args:
        file: as the split files that are published with Kvasir-SEG.

    Raises:
        DataError: the file cannot be read, is empty, or lists a name twice.
    """
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a list of names ({error}): give a text file of one per line."
        ) from error
    names = [_without_suffix(line.strip()) for line in lines if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice or not names:
        problem = f"lists {twice[0]} twice" if twice else "lists no name"
        raise DataError(f"{path} {problem}: write every name once, one per line.")
    return names


def choose_listed(cases: list[Case], file: str | Path) -> list[Case]:
    """The cases that a text file names, in their own order.

    Raises:
        DataError: the file names a case that there is not.
    """
    wanted = set(read_names(file))
    unknown = sorted(wanted - {case["name"] for case in cases})
    if unknown:
        raise DataError(
            f"{file} names {unknown[0]}, which the data set lacks ({len(unknown)} in all): correct the list."
        )
    return [case for case in cases if case["name"] in wanted]


def group_near_duplicates(cases: list[Case], threshold: int | None) -> list[Case]:
    """Give the photographs of one scene one group, so that no split can divide them.

    Public sets of single photographs name no patient, and the same polyp is often photographed twice.

    Args:
        cases: with "name" and "image".
        threshold: bits in which two difference hashes may differ; None makes every photograph its own group.

    Returns:
        The cases with "group": the name of the group's first case in natural order.
    """
    if threshold is None:
        return [{**case, "group": case["name"]} for case in cases]
    numbers = near_duplicate_groups([case["image"] for case in cases], threshold)
    first: dict[int, str] = {}
    for number, case in sorted(zip(numbers, cases, strict=True), key=lambda pair: natural_key(pair[1]["name"])):
        first.setdefault(number, case["name"])
    logger.info(
        "%d photographs make %d groups (of one scene where at most %d of %d hash bits differ)",
        len(cases),
        len(first),
        threshold,
        HASH_BITS,
    )
    return [{**case, "group": first[number]} for number, case in zip(numbers, cases, strict=True)]


def refuse_same_names(cases: Sequence[Case]) -> None:
    """Refuse two photographs of one name.

    Raises:
        DataError: naming both.
    """
    places: dict[str, str] = {}
    for case in cases:
        name, image = case["name"], case["image"]
        if name in places:
            raise DataError(f"{places[name]} and {image} both claim case {name}: keep or rename one of them.")
        places[name] = image


def refuse_unknown(found: Collection[str], known: Collection[str], file: str | Path, kind: str) -> None:
    """Refuse names that a file holds but the data set lacks.

    Raises:
        DataError: naming the first of them.
    """
    unknown = sorted(set(found) - set(known), key=natural_key)
    if unknown:
        raise DataError(
            f"{file} lists {unknown[0]}, which has no {kind} in the data set ({len(unknown)} such in all): "
            "restore the files or correct the list."
        )


def _without_suffix(name: str) -> str:
    return Path(name).stem if Path(name).suffix.lower() in FRAME_SUFFIXES else name
