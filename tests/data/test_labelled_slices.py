from __future__ import annotations

import json
import logging
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
    sides = [set(groups[items[:, 0]].tolist()) for items in split.values()]
    assert list(split) == ["train", "validation", "test"] and all(sides)
    assert sum(map(len, sides)) == 9 and set.union(*sides) == set(range(9))
    assert set(split["train"][:, 1].tolist()) == {0, 1, 2}
    assert sum(len(items) for items in split.values()) == 54
    again = divide_slices(store, tmp_path / "run", classes=3, validation_fraction=0.3, seed=1)
    assert all(np.array_equal(split[part], again[part]) for part in split)
    evaluated = slices_to_evaluate(store, tmp_path / "run", classes=3)
    assert np.array_equal(evaluated["evaluate"], split["test"])
    assert np.array_equal(evaluated["validation"], split["validation"])
    asked = {part: slices_to_evaluate(store, tmp_path / "run", classes=3, part=part) for part in (*split, "all")}
    assert all(np.array_equal(asked[part]["evaluate"], split[part]) for part in split)
    assert len(asked["all"]["evaluate"]) == 54
    with pytest.raises(DataError, match="choose one of train, validation, test, all"):
        slices_to_evaluate(store, tmp_path / "run", classes=3, part="held out")


def test_a_run_without_a_test_part_is_judged_on_its_validation_part(store: Path, tmp_path: Path):
    split = divide_slices(store, tmp_path / "run", classes=3, test_fraction=0)
    assert list(json.loads((tmp_path / "run" / "split.json").read_text())["parts"]) == ["train", "validation"]
    assert not len(split["test"])
    record = tmp_path / "run" / "patients.json"
    older = {part: names for part, names in json.loads(record.read_text()).items() if part != "test"}
    for content in (json.loads(record.read_text()), older):  # the records of older versions know no test part
        record.write_text(json.dumps(content))
        found = slices_to_evaluate(store, tmp_path / "run", classes=3)
        assert np.array_equal(found["evaluate"], split["validation"])
        with pytest.raises(DataError, match="no patient for test"):
            slices_to_evaluate(store, tmp_path / "run", classes=3, part="test")


def test_fractions_nest_and_leave_validation_alone(store: Path, tmp_path: Path):
    whole = divide_slices(store, tmp_path / "a", classes=3, validation_fraction=0.3)
    half = divide_slices(store, tmp_path / "b", classes=3, validation_fraction=0.3, label_fraction=0.5)
    seeds = [divide_slices(store, tmp_path / f"s{n}", "body_part", 3, 1.0, 0.3, n, 0) for n in range(1, 5)]
    for part in ("validation", "test"):
        assert len(whole[part]) and all(np.array_equal(one[part], whole[part]) for one in (half, *seeds))
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
    assert [len(listed) for listed in first.values()] == [5, 3, 2]
    assert len({name for listed in first.values() for name in listed}) == 10
    assert names(divide_cases(lits, tmp_path / "run", validation_fraction=0.3, seed=4)) == first
    assert json.loads((tmp_path / "run" / "cases.json").read_text()) == first
    assert names(cases_to_evaluate(lits, tmp_path / "run")) == {"train": first["train"], "evaluate": first["test"]}
    for part, listed in (*first.items(), ("all", [str(number) for number in range(10)])):
        assert names(cases_to_evaluate(lits, tmp_path / "run", part=part))["evaluate"] == listed
    with pytest.raises(DataError, match="choose one of train, validation, test, all"):
        cases_to_evaluate(lits, tmp_path / "run", part="held out")


def test_without_a_share_for_the_test_nothing_changes(lits: Path, tmp_path: Path):
    run = tmp_path / "run"
    split = names(divide_cases(lits, run, validation_fraction=0.3, seed=4, test_fraction=0))
    assert [len(listed) for listed in split.values()] == [7, 3, 0]
    assert json.loads((run / "split.json").read_text())["parts"] == {"train": 0.7, "validation": 0.3}
    (run / "cases.json").write_text(json.dumps({part: split[part] for part in ("train", "validation")}))
    assert names(cases_to_evaluate(lits, run))["evaluate"] == split["validation"]  # the record of an older version
    with pytest.raises(DataError, match="no case for test: train with a test_fraction"):
        cases_to_evaluate(lits, run, part="test")


def test_what_is_named_stays_and_the_rest_is_drawn(lits: Path, tmp_path: Path):
    held_out = names(divide_cases(lits, tmp_path / "a", test_cases=["7", 2]))
    assert held_out["test"] == ["7", "2"] and [len(held_out[part]) for part in ("train", "validation")] == [6, 2]
    validating = names(divide_cases(lits, tmp_path / "b", validation_cases=["7"]))
    assert validating["validation"] == ["7"] and [len(validating[part]) for part in ("train", "test")] == [7, 2]
    both = names(divide_cases(lits, tmp_path / "c", validation_cases=["7"], test_cases=["2"], label_fraction=0.5))
    assert (both["validation"], both["test"], len(both["train"])) == (["7"], ["2"], 4)
    trained = names(divide_cases(lits, tmp_path / "d", ["0", "1"], test_cases=["2"]))
    assert (trained["train"], trained["test"], len(trained["validation"])) == (["0", "1"], ["2"], 7)
    with pytest.raises(DataError, match="7 is listed for validation and for test"):
        divide_cases(lits, tmp_path / "e", validation_cases=["7"], test_cases=["7"])
    with pytest.raises(DataError, match="The test list names 11"):
        divide_cases(lits, tmp_path / "f", test_cases=["11"])
    assert not (tmp_path / "f").exists()  # no draw is left behind by a wrong name


def test_named_cases_are_judged_but_not_those_that_chose_the_epoch(lits: Path, tmp_path: Path):
    split = names(divide_cases(lits, tmp_path / "run", validation_cases=["7"], test_cases=["2"]))

    def judged(*named: list[str | int] | None, part: str | None = None, run: str = "run") -> list[str]:
        return names(cases_to_evaluate(lits, tmp_path / run, *named, part=part))["evaluate"]

    assert judged() == judged(["7"]) == judged(["7"], ["2"]) == split["test"] == ["2"]
    assert judged([3]) == judged(None, [3]) == judged([3], run="none") == ["3"]
    assert judged(["7"], part="validation") == ["7"]
    assert len(judged(part="all", run="none")) == 10


def test_too_few_patients_for_a_test_part_are_said(lits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for file in lits.glob("*-[2-9].nii"):
        file.unlink()
    with caplog.at_level(logging.WARNING):
        split = names(divide_cases(lits, tmp_path / "run"))
    assert [len(listed) for listed in split.values()] == [1, 1, 0]
    assert "judges the validation part" in caplog.text
    assert names(cases_to_evaluate(lits, tmp_path / "run"))["evaluate"] == split["validation"]


def test_seeds_share_a_division_where_it_has_its_own_seed(lits: Path, tmp_path: Path):
    def of(seed: int, split_seed: int | None) -> dict[str, list[str]]:
        place = tmp_path / f"{seed}_{split_seed}"
        return names(divide_cases(lits, place, None, None, 0.5, 0.3, seed, split_seed))

    assert of(4, None) == of(4, 4)
    runs = [of(seed, 4) for seed in range(6)]
    for part in ("validation", "test"):
        assert {tuple(run[part]) for run in runs} == {tuple(of(4, None)[part])}
    assert len({tuple(run["train"]) for run in runs}) > 1
    assert len({tuple(of(seed, None)["validation"]) for seed in range(6)}) > 1


def test_named_cases_are_taken_as_named(lits: Path, tmp_path: Path):
    both = names(divide_cases(lits, tmp_path / "a", ["0", 3], ["7"]))
    assert both == {"train": ["0", "3"], "validation": ["7"], "test": []}
    rest = names(divide_cases(lits, tmp_path / "b", validation_cases=["7"], test_fraction=0))
    assert rest["validation"] == ["7"]
    assert len(rest["train"]) == 9
    few = names(divide_cases(lits, tmp_path / "c", validation_cases=["7"], label_fraction=0.3, test_fraction=0))
    assert len(few["train"]) == 3
    with pytest.raises(DataError):
        divide_cases(lits, tmp_path / "d", ["0"], ["0"])
    with pytest.raises(DataError, match="11"):
        divide_cases(lits, tmp_path / "e", ["11"], ["0"])
    with pytest.raises(DataError, match="lacks"):
        cases_to_evaluate(lits, tmp_path / "a", ["12"])
