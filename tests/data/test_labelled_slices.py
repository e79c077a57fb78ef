from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_ssl_transfer.data.ct.labelled_cases import cases_to_evaluate, divide_cases
from monai_ssl_transfer.data.labelled_slices import (
    LabelledSliceDataset,
    all_slices,
    classified_slices,
    divide_slices,
    slices_to_evaluate,
)
from monai_ssl_transfer.data.store import SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_writer import SliceStoreWriter, encode_slice
from monai_ssl_transfer.errors import DataError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ten patients, two series each; patient 0 shows two classes, patient 9 has no class at all."""
    with SliceStoreWriter(tmp_path / "store") as writer:
        for number in range(20):
            patient = number // 2
            part = 255 if patient == 9 else (patient + (number % 2 if patient == 0 else 0)) % 3
            entry = SeriesEntry(f"{number:032x}", f"{patient:032x}", "dicom", 5.0, False, tuple(np.eye(4).ravel()))
            hu = np.full((8, 10), number, dtype=np.int16)
            slices = [encode_slice(hu + z, position=5.0 * z, spacing=(2.0, 3.0), body_part=part) for z in range(3)]
            writer.append(entry, slices)
    return tmp_path / "store"


def test_patients_are_never_on_both_sides_and_every_class_is_trained(store: Path, tmp_path: Path):
    split = divide_slices(store, tmp_path / "run", classes=3, validation_fraction=0.3, seed=1)
    groups = SliceStore(store).patient_numbers()
    sides = {part: set(groups[items[:, 0]].tolist()) for part, items in split.items()}
    assert not sides["train"] & sides["validation"]
    assert sides["train"] | sides["validation"] == set(range(9))
    assert set(split["train"][:, 1].tolist()) == {0, 1, 2}
    assert sum(len(items) for items in split.values()) == 54
    again = divide_slices(store, tmp_path / "run", classes=3, validation_fraction=0.3, seed=1)
    assert all(np.array_equal(split[part], again[part]) for part in split)
    evaluated = slices_to_evaluate(store, tmp_path / "run", classes=3)
    assert np.array_equal(evaluated["validation"], split["validation"])


def test_fractions_nest_and_leave_validation_alone(store: Path, tmp_path: Path):
    whole = divide_slices(store, tmp_path / "a", classes=3, validation_fraction=0.3)
    half = divide_slices(store, tmp_path / "b", classes=3, validation_fraction=0.3, label_fraction=0.5)
    seeds = [divide_slices(store, tmp_path / f"s{n}", "body_part", 3, 1.0, 0.3, n, 0) for n in range(1, 5)]
    assert all(np.array_equal(one["validation"], whole["validation"]) for one in seeds)
    assert np.array_equal(whole["validation"], half["validation"])
    assert 0 < len(half["train"]) < len(whole["train"])
    assert set(half["train"][:, 0]) < set(whole["train"][:, 0])


def test_items_name_their_origin(store: Path):
    item = LabelledSliceDataset(store, np.array([[4, 1]]))[0]
    assert item["image"].shape == (1, 8, 10)
    assert int(item["image"][0, 0, 0]) == 2
    assert (int(item["label"]), item["index"], item["position"]) == (1, 4, 5.0)
    assert item["series"] == f"{1:032x}"
    assert item["spacing"].tolist() == [2.0, 3.0]
    assert len(all_slices(store)) == 60


def test_what_cannot_be_classified_is_said(store: Path, tmp_path: Path):
    with pytest.raises(DataError, match="no slice"):
        classified_slices(store, "label", 3)
    with pytest.raises(DataError, match="knows 2 classes"):
        classified_slices(store, "body_part", 2)
    with pytest.raises(DataError, match="label_field"):
        classified_slices(store, "age", 2)
    with pytest.raises(DataError, match="which training writes"):
        slices_to_evaluate(store, tmp_path / "nothing", classes=3)


@pytest.fixture
def lits(tmp_path: Path) -> Path:
    folder = tmp_path / "lits"
    folder.mkdir()
    for case in range(10):
        (folder / f"volume-{case}.nii").touch()
        (folder / f"segmentation-{case}.nii").touch()
    return folder


def names(split: dict[str, list[dict[str, str]]]) -> dict[str, list[str]]:
    return {part: [case["case"] for case in cases] for part, cases in split.items()}


def test_a_drawn_division_is_kept_and_recorded(lits: Path, tmp_path: Path):
    first = names(divide_cases(lits, tmp_path / "run", validation_fraction=0.3, seed=4))
    assert (len(first["train"]), len(first["validation"])) == (7, 3)
    assert names(divide_cases(lits, tmp_path / "run", validation_fraction=0.3, seed=4)) == first
    assert json.loads((tmp_path / "run" / "cases.json").read_text()) == first
    assert names(cases_to_evaluate(lits, tmp_path / "run")) == first
    assert names(cases_to_evaluate(lits, tmp_path / "run", [3]))["validation"] == ["3"]


def test_seeds_share_a_division_where_it_has_its_own_seed(lits: Path, tmp_path: Path):
    def of(seed: int, split_seed: int | None) -> dict[str, list[str]]:
        place = tmp_path / f"{seed}_{split_seed}"
        return names(divide_cases(lits, place, None, None, 0.5, 0.3, seed, split_seed))

    assert of(4, None) == of(4, 4)
    runs = [of(seed, 4) for seed in range(6)]
    assert {tuple(run["validation"]) for run in runs} == {tuple(of(4, None)["validation"])}
    assert len({tuple(run["train"]) for run in runs}) > 1
    assert len({tuple(of(seed, None)["validation"]) for seed in range(6)}) > 1


def test_named_cases_are_taken_as_named(lits: Path, tmp_path: Path):
    both = names(divide_cases(lits, tmp_path / "a", ["0", 3], ["7"]))
    assert both == {"train": ["0", "3"], "validation": ["7"]}
    rest = names(divide_cases(lits, tmp_path / "b", validation_cases=["7"]))
    assert rest["validation"] == ["7"]
    assert len(rest["train"]) == 9
    few = names(divide_cases(lits, tmp_path / "c", validation_cases=["7"], label_fraction=0.3))
    assert len(few["train"]) == 3
    with pytest.raises(DataError):
        divide_cases(lits, tmp_path / "d", ["0"], ["0"])
    with pytest.raises(DataError, match="11"):
        divide_cases(lits, tmp_path / "e", ["11"], ["0"])
    with pytest.raises(DataError, match="lacks"):
        cases_to_evaluate(lits, tmp_path / "a", ["12"])
