"""Slices of a store with a class each, split by patient: the data of slice classification."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from monai_ssl_transfer.data.annotations import with_classes
from monai_ssl_transfer.data.ct.volume_slices import even_slices
from monai_ssl_transfer.data.recorded_split import NO_TEST_CASE, part_to_judge, record_split, recorded_split
from monai_ssl_transfer.data.slices import SliceDataset
from monai_ssl_transfer.data.splits import load_or_make_split
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
NO_CLASS = {"body_part": 255, "label": -1}
"""What a slice without a class holds in each field of the index."""


class LabelledSliceDataset(Dataset):
    """Slices with class, origin and spacing, passed through a MONAI transform.

    Args:
        store: path of a slice store.
        data: (N, 2) int64: slice number and class per item (class -1: none). Or cases of an annotator (`annotations`):
            "image", a NIfTI volume, and "label"; its slices (`even_slices`) take the place of the store's.
        transform: MONAI dictionary transform for items with "image" ((1|3, H, W) int16 HU) and "spacing" ((row, column)
            mm).
        channels: "windows", "single" or "neighbours" (reads the adjacent slices as well).
        class_names: one per class; for the labels of annotators.
    """

    def __init__(
        self,
        store: str | Path,
        data: np.ndarray | Sequence[Mapping[str, Any]],
        transform: Callable[[dict[str, Any]], Any] | None = None,
        channels: str = "windows",
        class_names: Sequence[str] = (),
    ) -> None:
        self.transform = transform
        self.volumes: list[dict[str, Any]] | None = None
        if isinstance(data, Sequence):
            cases = with_classes(data, class_names)
            self.volumes = [
                one | {"label": case["class"]} for case in cases for one in even_slices(case["image"], channels)
            ]
            return
        self.data = np.asarray(data, dtype=np.int64).reshape(-1, 2)
        self.slices = SliceDataset(SliceStore(store), channels)

    def __len__(self) -> int:
        return len(self.data) if self.volumes is None else len(self.volumes)

    def __getitem__(self, position: int) -> Any:
        """One slice: "image", "label" (int64), "index", "series" (key), "position" (mm), "spacing" (mm)."""
        item = self._of_store(position) if self.volumes is None else self._of_volume(position)
        return item if self.transform is None else self.transform(item)

    def _of_volume(self, position: int) -> dict[str, Any]:
        found = (self.volumes or [])[position]
        return found | {"index": position, "label": torch.tensor(found["label"], dtype=torch.int64)}

    def _of_store(self, position: int) -> dict[str, Any]:
        number, label = (int(value) for value in self.data[position])
        store = self.slices.store
        row = store.index[number]
        spacing = (float(row["row_spacing"]), float(row["column_spacing"]))
        if not min(spacing) > 0:
            raise DataError(f"slice {number} of {store.path} has no pixel spacing: ingest its scan with spacing.")
        return {
            "image": self.slices[number]["image"],
            "label": torch.tensor(label, dtype=torch.int64),
            "index": number,
            "series": store.series(int(row["series"])).series_key,
            "position": float(row["position"]),
            "spacing": torch.tensor(spacing),
        }


def all_slices(dataset_dir: str | Path) -> np.ndarray:
    """Every slice of a store without a class, as `LabelledSliceDataset` takes it: (N, 2) int64."""
    count = len(SliceStore(dataset_dir))
    if count == 0:
        raise DataError(f"{dataset_dir} holds no slices: ingest scans into it first.")
    return np.stack([np.arange(count), np.full(count, -1)], axis=1)


def classified_slices(dataset_dir: str | Path, label_field: str, classes: int) -> np.ndarray:
    """Slices of a store that have a class; those without one are counted in the log.

    Args:
        dataset_dir: the store.
        label_field: "body_part" or "label".
        classes: number of classes.

    Returns:
        (N, 2) int64: slice number and class.

    Raises:
        DataError: unknown field, no slice with a class, or a class outside the range.
    """
    if label_field not in NO_CLASS:
        raise DataError(f"label_field '{label_field}' is unknown: choose one of {', '.join(NO_CLASS)}.")
    labels = np.asarray(SliceStore(dataset_dir).index[label_field]).astype(np.int64)
    known = labels != NO_CLASS[label_field]
    if not known.any():
        raise DataError(
            f"no slice of {dataset_dir} has a {label_field}: ingest the scans with BodyPartExamined or --labels."
        )
    if not known.all():
        logger.warning("%d of %d slices have no %s and are not used", (~known).sum(), len(known), label_field)
    if labels[known].max() >= classes:
        raise DataError(
            f"{dataset_dir} holds {label_field} {labels[known].max()}, but the bundle knows {classes} classes: "
            "give class_names and the outputs of the network to match."
        )
    return np.stack([np.flatnonzero(known), labels[known]], axis=1)


def divide_slices(
    dataset_dir: str | Path,
    output_dir: str | Path,
    label_field: str = "body_part",
    classes: int = 6,
    label_fraction: float = 1.0,
    validation_fraction: float = 0.2,
    seed: int = 0,
    split_seed: int | None = None,
    test_fraction: float = 0.2,
) -> dict[str, np.ndarray]:
    """Divide the classified slices of a store by patient, stratified by class; the draw is kept in `split.json`.

    The patients that are used are recorded in `patients.json` (their salted hashes) for the evaluation.

    Args:
        dataset_dir: the store.
        output_dir: folder of the run.
        label_field: "body_part" or "label".
        classes: number of classes.
        label_fraction: share of the training patients that is used.
        validation_fraction: share of the patients that is kept for validation.
        seed: of the draw of the label fraction.
        split_seed: of the division; None: `seed`.
        test_fraction: share of the patients that is held out for the test; 0 for none.

    Returns:
        {"train": (N, 2), "validation": (M, 2), "test": (K, 2)}: slice number and class.

    Raises:
        DataError: as `classified_slices`; too few patients, or a store that has changed since the draw.
    """
    items = classified_slices(dataset_dir, label_field, classes)
    groups, keys = _patients(dataset_dir, items)
    pairs = np.unique(np.stack([groups, items[:, 1]], axis=1), axis=0)  # a patient once per class, not once per slice
    names = [keys[group] for group in pairs[:, 0].tolist()]
    held_out = {"validation": validation_fraction} | ({"test": test_fraction} if test_fraction else {})
    parts = {"train": 1 - sum(held_out.values()), **held_out}
    file = Path(output_dir) / "split.json"
    drawn_by = seed if split_seed is None else split_seed
    split = load_or_make_split(
        file, names, pairs[:, 1], parts=parts, seed=drawn_by, fraction=label_fraction, fraction_seed=seed
    )
    chosen = {part: sorted({names[i] for i in split.get(part, ())}) for part in PARTS}
    if test_fraction and not chosen["test"]:
        logger.warning(NO_TEST_CASE)
    record_split(Path(output_dir) / "patients.json", chosen)
    return _slices_of(items, groups, keys, chosen)


def slices_to_evaluate(
    dataset_dir: str | Path,
    run_dir: str | Path,
    label_field: str = "body_part",
    classes: int = 6,
    part: str | None = None,
) -> dict[str, np.ndarray]:
    """The slices of the patients that a training run recorded, as `divide_slices` returns them, and those to judge.

    Args:
        dataset_dir: the store.
        run_dir: folder of the training run, with its `patients.json`.
        label_field: "body_part" or "label".
        classes: number of classes.
        part: "train", "validation" or "test"; "all" takes every patient, recorded or not (another store); None takes
            the test part, or of a run without one the validation part.

    Returns:
        Slices by part, and under "evaluate" those to judge; parts without a record are empty.

    Raises:
        DataError: no record, unknown part, an empty one, or none of its patients is in the store.
    """
    items = classified_slices(dataset_dir, label_field, classes)
    record = Path(run_dir) / "patients.json"
    recorded: dict[str, list[str]] = {name: [] for name in PARTS}
    if part != "all" or record.is_file():
        recorded = recorded_split(record, optional=("test",))
    part = part_to_judge(part, {}, recorded)
    found = _slices_of(items, *_patients(dataset_dir, items), recorded)
    if part == "all":
        return found | {"evaluate": items}
    if not recorded[part]:
        raise DataError(f"{record} has no patient for {part}: train with a {part}_fraction, or evaluate another part.")
    if not len(found[part]):
        raise DataError(
            f"{dataset_dir} holds no patient of {record} for {part}: give the store of the run, or evaluate the part "
            "'all' of another one."
        )
    return found | {"evaluate": found[part]}


def _patients(dataset_dir: str | Path, items: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Patient number per item, and the key of every patient number."""
    store = SliceStore(dataset_dir)
    groups = np.asarray(store.patient_numbers())[items[:, 0]]
    numbers, first = np.unique(groups, return_index=True)
    series = store.index["series"][items[first, 0]]
    return groups, {int(n): store.series(int(s)).patient_key for n, s in zip(numbers, series, strict=True)}


def _slices_of(
    items: np.ndarray, groups: np.ndarray, keys: dict[int, str], chosen: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    number = {key: group for group, key in keys.items()}
    members = {part: [number[name] for name in names if name in number] for part, names in chosen.items()}
    return {part: items[np.isin(groups, found)] for part, found in members.items()}
