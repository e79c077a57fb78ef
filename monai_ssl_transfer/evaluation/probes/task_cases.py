"""The cases of a classification bundle by part, with class, patient and volume, read from its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.data.splits import grouped_split
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.file_hash import file_sha256

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

PARTS = ("train", "validation", "test")
_METRICS = ("ClassificationMetric", "FindingsMetric", "image_metrics")


@dataclass(frozen=True)
class TaskPart:
    """One side of the split.

    Args:
        items: what the bundle's preprocessing is given: dictionaries, or (N, 2) slice numbers and classes.
        targets: (N,) int64, or (N, C) float32 where a case may have several findings.
        cases: N names.
        groups: N patients or scenes.
        volumes: the volume of each case; a case that is of none is its own.
        files: N paths or places, for the table of predictions.
    """

    items: Any
    targets: Tensor
    cases: tuple[str, ...]
    groups: tuple[str, ...]
    volumes: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class TaskCases:
    """All cases of a task.

    Args:
        class_names: of the classes or findings.
        parts: "train", "validation" and "test".
        store: of CT slices; None for photographs.
    """

    class_names: tuple[str, ...]
    parts: dict[str, TaskPart]
    store: Path | None = None


def task_cases(parser: ConfigParser) -> TaskCases:
    """Read the cases of a classification bundle and divide them as its training does.

    Slices of a store that were divided without a test part (``test_fraction`` 0) are judged on the validation part, as
    by their bundle's own evaluation; the probe's settings are then chosen on a share of the training patients as large
    as ``validation_fraction``.

    Args:
        parser: of the bundle, not yet run.

    Raises:
        DataError: a bundle that does not classify, a part without cases, or what the bundle finds wrong with the data.
    """
    check_classifies(parser)
    names = tuple(parser.get_parsed_content("class_names"))
    if "slices" in parser:
        store = Path(parser.get_parsed_content("dataset_dir"))
        return TaskCases(names, _slice_parts(parser, SliceStore(store)), store)
    divided: Mapping[str, Sequence[Mapping[str, Any]]] = parser.get_parsed_content("cases")
    for part in PARTS:
        if not divided.get(part):
            raise DataError(f"the split has no case for {part}: raise {part}_fraction, or name cases for it.")
    return TaskCases(names, {part: _photographs(divided[part], names) for part in PARTS})


def check_classifies(parser: ConfigParser) -> None:
    """Refuse bundles of other tasks.

    Raises:
        DataError: the bundle's metric is none of classes.
    """
    metric = str(parser.get("validate#key_metric") or "")
    if "class_names" in parser and any(name in metric for name in _METRICS):
        return
    raise DataError(
        f"{parser.get('bundle_root') or 'the bundle'} gives its images no classes, and probes and rankings need one "
        "per image: give a classification bundle, or fine-tune this one with each encoder."
    )


def content_names(cases: TaskCases, part: TaskPart) -> list[str]:
    """What tells an image wherever it lies: 32 hexadecimal digits of its file, or of its store and number.

    Raises:
        DataError: a file cannot be read.
    """
    if cases.store is not None:
        store = SliceStore(cases.store).content_hash
        return [hashlib.sha256(f"{store} {number}".encode()).hexdigest()[:32] for number in part.items[:, 0].tolist()]
    found = []
    for file in part.files:
        try:
            found.append(file_sha256(Path(file))[:32])
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror}): restore it, or take it out.") from error
    return found


def _photographs(cases: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> TaskPart:
    names = tuple(str(case["name"]) for case in cases)
    return TaskPart(
        items=[dict(case) for case in cases],
        targets=_targets(cases, class_names),
        cases=names,
        groups=tuple(str(case.get("group", case["name"])) for case in cases),
        volumes=tuple(str(case.get("volume") or case["name"]) for case in cases),
        files=tuple(str(case["image"]) for case in cases),
    )


def _targets(cases: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> Tensor:
    """Class numbers, or a row of 0 and 1 per case."""
    values = np.asarray([case["class"] for case in cases])
    if values.ndim == 1:
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.astype(np.float32)).reshape(len(cases), len(class_names))


def _slice_parts(parser: ConfigParser, store: SliceStore) -> dict[str, TaskPart]:
    divided = parser.get_parsed_content("slices")
    if len(divided["test"]):
        return {part: _slices(store, np.asarray(divided[part])) for part in PARTS}
    learned, held_out = np.asarray(divided["train"]), np.asarray(divided["validation"])
    share = float(parser.get_parsed_content("validation_fraction"))
    patients = np.asarray(store.patient_numbers())[learned[:, 0]]
    # a patient once per class, as the bundle itself divides: not once per slice
    pairs = np.unique(np.stack([patients, learned[:, 1]], axis=1), axis=0)
    shares = {"train": 1 - share, "validation": share}
    seed = int(parser.get_parsed_content("seed"))
    split = grouped_split([str(one) for one in pairs[:, 0]], pairs[:, 1], shares, seed)
    chosen = np.unique(pairs[split["validation"], 0])
    inside = np.isin(patients, chosen)
    parts = {"train": learned[~inside], "validation": learned[inside], "test": held_out}
    return {part: _slices(store, items) for part, items in parts.items()}


def _slices(store: SliceStore, items: np.ndarray) -> TaskPart:
    numbers = items[:, 0].tolist()
    series = [int(store.index[number]["series"]) for number in numbers]
    entries = {one: store.series(one) for one in set(series)}
    starts = {one: store.series_range(one).start for one in entries}
    keys = tuple(entries[one].series_key for one in series)
    cases = tuple(f"{key}#{number - starts[one]}" for key, one, number in zip(keys, series, numbers, strict=True))
    return TaskPart(
        items=items,
        targets=torch.from_numpy(items[:, 1].astype(np.int64)),
        cases=cases,
        groups=tuple(entries[one].patient_key for one in series),
        volumes=keys,
        files=cases,
    )
