"""Training, validation and test images: as the data set's authors divided them where they did, else drawn by group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case, group_near_duplicates
from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.errors import DataError

PART = "part"
"""Key of a case that its authors put into a part: "train", "validation" or "test"."""


def divide_images(
    cases: Sequence[Case],
    output_dir: str | Path,
    official_parts: bool = True,
    label_fraction: float = 1.0,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int = 0,
    split_seed: int = 0,
    stratum: str | None = None,
) -> dict[str, list[Case]]:
    """Divide images as `divide_frames` does, with the parts of the data set's authors held to.

    A part that the authors did not make is drawn by group from the images that they left for training. Training images
    of a group (patient, near duplicates) of which the authors hold out others are left out, and the log says how many.

    Args:
        cases: with "name" and "group"; "part" where the authors chose one.
        output_dir: folder of the run.
        official_parts: False draws all parts anew.
        label_fraction: share of the training groups that is used.
        validation_fraction: share of the drawn groups that validates, where there is no official validation part.
        test_fraction: likewise for the test.
        seed: of the label fraction.
        split_seed: of the division.
        stratum: key of what every part shall have its share of.

    Returns:
        {"train": [...], "validation": [...], "test": [...]} in the order of the cases.

    Raises:
        DataError: as `divide_frames`.
    """
    named = {
        part: [case["name"] for case in cases if official_parts and case.get(PART) == part] or None
        for part in ("validation", "test")
    }
    return divide_frames(
        cases,
        output_dir,
        label_fraction=label_fraction,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        split_seed=split_seed,
        stratum=stratum,
        test_groups=named["test"],
        validation_groups=named["validation"],
    )


def group_images(cases: list[Case], pattern: str | None, duplicate_threshold: int | None) -> list[Case]:
    """Give every image its group: the patient in its name, or the images that look like it.

    Args:
        cases: with "name" and "image".
        pattern: regular expression that is searched in the name; what its first parentheses find is the patient. None
            goes by near duplicates.
        duplicate_threshold: bits of 256 in which the hashes of two images of one group differ at most; None makes every
            image its own group.

    Raises:
        DataError: no regular expression with parentheses, or a name that it does not fit.
    """
    if pattern is None:
        return group_near_duplicates(cases, duplicate_threshold)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"group_pattern {pattern!r} is no regular expression ({error}): correct it.") from error
    if compiled.groups < 1:
        raise DataError(f"group_pattern {pattern!r} marks no patient: put parentheses around that part of the name.")
    grouped = []
    for case in cases:
        found = compiled.search(case["name"])
        if found is None or not found.group(1):
            raise DataError(f"{case['image']} has no patient by group_pattern {pattern!r}: rename it or correct that.")
        grouped.append({**case, "group": found.group(1)})
    return grouped
