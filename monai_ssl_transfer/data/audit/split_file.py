"""A split from a file: what a training run writes (split.json, cases.json, frames.json), or names by part."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_ssl_transfer.data.audit.findings import Finding, finding, listed
from monai_ssl_transfer.data.audit.items import Item
from monai_ssl_transfer.errors import DataError

_PARTS = {"train": "train", "training": "train", "val": "validation", "valid": "validation"}
_NO_PARTS = ("held_out_files", "left_out")


def read_split(file: str | Path) -> dict[str, list[str]]:
    """Names by part.

    Args:
        file: JSON file: an object with a list of names per part, or a run's ``split.json`` (which holds groups).

    Raises:
        DataError: there is no such file or it is no split.
    """
    path = Path(file)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        beside = path.with_name("frames.json")
        if "groups" in content and beside.is_file():  # groups of photographs are named there one by one
            content = json.loads(beside.read_text(encoding="utf-8"))
        content = content.get("groups", content)
        found = {
            _PARTS.get(part, part): [_name(entry) for entry in names]
            for part, names in content.items()
            if isinstance(names, list) and part not in _NO_PARTS and not part.endswith(("_lacks", "_groups"))
        }
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} cannot be read as a split ({error}): give split.json, cases.json or frames.json of a run, "
            'or an object such as {"train": [names], "test": [names]}.'
        ) from error
    if len([part for part, names in found.items() if names]) < 2:
        raise DataError(f"{path} names fewer than two parts: give the split with all its parts.")
    return found


def _name(entry: object) -> str:
    """A name, or the image of a MONAI data list's entry."""
    if isinstance(entry, dict):
        return str(entry.get("case", entry.get("name", entry["image"])))
    return str(entry)


def assign_parts(items: Sequence[Item], split: dict[str, list[str]]) -> tuple[list[str], list[Finding]]:
    """The part of every item, and what the split and the data do not agree on.

    Args:
        items: of the data set; a split may name them by case, file, path or group.
        split: names by part.
    """
    places: dict[str, list[int]] = defaultdict(list)
    groups: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        for name in item.stands_in:
            places[name].append(number)
        if item.group:
            groups[item.group].append(number)
    parts: list[dict[str, None]] = [{} for _ in items]
    unknown: list[str] = []
    for part, names in split.items():
        for name in names:
            short = Path(name).name
            found = places.get(name) or groups.get(name) or places.get(short) or places.get(short.split(".nii")[0])
            if not found:
                unknown.append(name)
            for number in found or ():
                parts[number][part] = None
    return [next(iter(found), "") for found in parts], list(_disagreements(items, parts, unknown))


def _disagreements(
    items: Sequence[Item], parts: Sequence[dict[str, None]], unknown: Sequence[str]
) -> Iterator[Finding]:
    for item, found in zip(items, parts, strict=True):
        if len(found) > 1:
            telling = f"{item.shown} is named for {' and for '.join(found)}"
            yield finding("same-case-in-two-parts", telling, [item.shown])
    if unknown:
        yield finding("split-unknown-name", f"the split names {listed(unknown)}, which the data do not hold", unknown)
    left = [item.shown for item, found in zip(items, parts, strict=True) if not found]
    if left:
        telling = f"{len(left)} of {len(items)} are in no part of the split: {listed(left)}"
        yield finding("split-incomplete", telling, left)
