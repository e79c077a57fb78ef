"""The labelled images of a datastore as cases, and which of them train and which validate."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from monai_ssl_transfer.data.endoscopy.near_duplicates import DUPLICATE_THRESHOLD, near_duplicate_groups
from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.label.image_files import PHOTOGRAPH, split_name

logger = logging.getLogger(__name__)

GROUP_KEYS = ("group", "patient", "patient_id", "PatientID", "sequence", "StudyInstanceUID")
"""Entries of an image's info in the datastore that name what must not be divided; the first that is there counts."""

DIVISION = "division.json"
TRAINING, VALIDATION = "training", "validation"


class LabelledImages(Protocol):
    """What is needed of a MONAI Label datastore."""

    def datalist(self) -> list[dict[str, Any]]:
        """Paths of images and of their final labels."""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What the datastore knows of an image."""


@dataclass(frozen=True)
class LabelledCase:
    """One labelled image.

    Args:
        name: image id.
        image: path.
        label: path of the label.
        group: patient, sequence or scene.
        stratum: class of a classified image; "" for any other label.
    """

    name: str
    image: str
    label: str
    group: str
    stratum: str

    @property
    def item(self) -> dict[str, str]:
        """What a bundle's data list has of it."""
        return {"image": self.image, "label": self.label}


def labelled_cases(datastore: LabelledImages) -> list[LabelledCase]:
    """List the images that have a final label, in the order of their names.

    Groups come from the image's info in the datastore (`GROUP_KEYS`; settable through `PUT /datastore/image/info`);
    photographs without such an entry are grouped where they show the same scene, every other image is its own group.

    Raises:
        DataError: fewer than two are labelled, a file is missing, or a photograph cannot be read.
    """
    listed = sorted((str(one["image"]), str(one["label"])) for one in datastore.datalist() if one)
    refuse_too_few(len(listed))
    for file in (file for pair in listed for file in pair):
        if not Path(file).exists():
            raise DataError(f"{file} is listed by the datastore and not there: restore it, or label the image again.")
    names = [split_name(Path(image).name)[0] for image, _ in listed]
    groups = _groups(names, [image for image, _ in listed], datastore)
    return [
        LabelledCase(name, image, label, group, _stratum(label))
        for name, (image, label), group in zip(names, listed, groups, strict=True)
    ]


def refuse_too_few(labelled: int) -> None:
    """Refuse a training that has nothing to validate on.

    Raises:
        DataError: fewer than two images are labelled.
    """
    if labelled < 2:
        found = "one image is" if labelled else "no image is"
        raise DataError(
            f"{found} labelled, and training needs two, one of which validates: label more and train again."
        )


def divide(cases: Sequence[LabelledCase], share: float, seed: int, folder: Path) -> dict[str, list[LabelledCase]]:
    """Divide by group into training and validation; what was once on one side stays there.

    The model in use was trained on the training images of earlier trainings, and would be judged too well on them.
    Therefore the division is kept in `division.json`, and only images that are new are drawn.

    Args:
        cases: of `labelled_cases`.
        share: of the images that shall validate, above 0 and below 1.
        seed: of the draw.
        folder: of the bundle's runs.

    Returns:
        Cases by `TRAINING` and `VALIDATION`; neither is empty.

    Raises:
        DataError: all cases are of one group, or the record is damaged or cannot be written.
    """
    recorded = _read(folder / DIVISION)
    groups: dict[str, list[LabelledCase]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    if len(groups) < 2:
        raise DataError(
            f"all {len(cases)} labelled images are of one patient or scene ({next(iter(groups))}), so none can "
            "validate: label an image of another one."
        )
    parts = _draw(groups, recorded, share, seed)
    _write(folder / DIVISION, {**recorded, **parts})
    divided = {part: [case for case in cases if parts[case.name] == part] for part in (TRAINING, VALIDATION)}
    logger.info("%d labelled images train and %d validate", len(divided[TRAINING]), len(divided[VALIDATION]))
    return divided


def _groups(names: list[str], images: list[str], datastore: LabelledImages) -> list[str]:
    stated = [_stated_group(datastore.get_image_info(name) or {}) for name in names]
    photographs = [
        number for number, image in enumerate(images) if not stated[number] and Path(image).suffix.lower() in PHOTOGRAPH
    ]
    scenes = (
        near_duplicate_groups([images[number] for number in photographs], DUPLICATE_THRESHOLD) if photographs else []
    )
    first: dict[int, str] = {}
    found = list(stated)
    for number, scene in zip(photographs, scenes, strict=True):
        found[number] = first.setdefault(scene, names[number])
    return [group or name for group, name in zip(found, names, strict=True)]


def _stated_group(info: Mapping[str, Any]) -> str:
    return next((f"{key} {info[key]}" for key in GROUP_KEYS if info.get(key)), "")


def _stratum(label: str) -> str:
    if not label.lower().endswith(".json"):
        return ""
    try:
        content = json.loads(Path(label).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{label} cannot be read as JSON ({error}): label the image again.") from error
    return str(content["label"]) if isinstance(content, dict) and isinstance(content.get("label"), str) else ""


def _draw(
    groups: Mapping[str, list[LabelledCase]], recorded: Mapping[str, str], share: float, seed: int
) -> dict[str, str]:
    """The part of every case: as recorded; of a new group, validation while there is less than the share of it."""
    parts: dict[str, str] = {}
    fresh = []
    for name, members in groups.items():
        known = {recorded[case.name] for case in members if case.name in recorded}
        if not known:
            fresh.append(name)
            continue
        joined = VALIDATION if VALIDATION in known else TRAINING
        parts.update({case.name: recorded.get(case.name, joined) for case in members})
    target = max(1, round(share * sum(len(members) for members in groups.values())))
    trained = {case.stratum for members in groups.values() for case in members if parts.get(case.name) == TRAINING}
    for name in sorted(fresh, key=lambda one: blake2b(f"{seed}/{one}".encode(), digest_size=8).digest()):
        members = groups[name]
        wanted = target - sum(part == VALIDATION for part in parts.values())
        # a class is learnt before it is judged, and half of a large group beyond the share is too much of it
        validates = {case.stratum for case in members} <= trained and len(members) / 2 <= wanted
        parts.update(dict.fromkeys((case.name for case in members), VALIDATION if validates else TRAINING))
        trained |= set() if validates else {case.stratum for case in members}
    return _neither_empty(groups, parts, fresh)


def _neither_empty(
    groups: Mapping[str, list[LabelledCase]], parts: dict[str, str], fresh: Iterable[str]
) -> dict[str, str]:
    """Move the smallest group to a part that has none; a new one if possible, so that no old model has seen it."""
    for lacking in (TRAINING, VALIDATION):
        if lacking in parts.values():
            continue
        movable = sorted(groups, key=lambda name: (name not in set(fresh), len(groups[name]), name))
        if movable[0] not in set(fresh):
            logger.warning(
                "%s moves to %s, because no other labelled image is left for it: the model in use may have been "
                "trained on it",
                movable[0],
                lacking,
            )
        parts.update(dict.fromkeys((case.name for case in groups[movable[0]]), lacking))
    return parts


def _read(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not all(part in (TRAINING, VALIDATION) for part in content.values()):
            raise ValueError("a part that is neither training nor validation")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{file} cannot be read ({error}): remove it, and the images are divided anew.") from error
    return dict(content)


def _write(file: Path, parts: Mapping[str, str]) -> None:
    text = json.dumps(dict(sorted(parts.items())), indent=1) + "\n"
    try:
        write_durably(file, lambda stream: stream.write(text.encode()))
    except OSError as error:
        raise DataError(f"{file} could not be written ({error.strerror}): give the folder's rights.") from error
