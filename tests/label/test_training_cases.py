"""Which labelled images train and which validate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.label.image_files import split_name
from monai_ssl_transfer.label.training_cases import TRAINING, VALIDATION, LabelledCase, divide, labelled_cases
from monai_ssl_transfer.label.training_request import TrainingRequest

DEFAULTS = {"device": ["cpu"], "pretrained": True, "max_epochs": 50, "val_split": 0.2, "multi_gpu": True, "gpus": "all"}


def cases_of(groups: dict[str, int], strata: dict[str, str] | None = None) -> list[LabelledCase]:
    return [
        LabelledCase(f"{group}-{number}", f"{group}-{number}.png", "mask.png", group, (strata or {}).get(group, ""))
        for group, size in groups.items()
        for number in range(size)
    ]


class Folder:
    """A datastore's list over real files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: dict[str, dict[str, Any]] = {}
        self.names: list[tuple[str, str]] = []

    def add(self, name: str, image: np.ndarray, label: str = "mask.png", **info: Any) -> None:
        Image.fromarray(image).save(self.folder / name)
        (self.folder / label).touch()
        self.names.append((name, label))
        self.info[Path(name).stem] = info

    def datalist(self) -> list[dict[str, Any]]:
        return [{"image": str(self.folder / one), "label": str(self.folder / label)} for one, label in self.names]

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        return self.info[image_id]


@given(
    groups=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 4), min_size=2, max_size=12),
    seed=st.integers(0, 5),
    share=st.floats(0.05, 0.9),
)
def test_no_group_is_on_two_sides_and_no_side_is_empty(
    tmp_path_factory: pytest.TempPathFactory, groups: dict[str, int], seed: int, share: float
) -> None:
    folder = tmp_path_factory.mktemp("division")
    cases = cases_of(groups)
    divided = divide(cases, share, seed, folder)
    assert divided[TRAINING] and divided[VALIDATION]
    assert sorted(case.name for part in divided.values() for case in part) == sorted(case.name for case in cases)
    assert not {case.group for case in divided[TRAINING]} & {case.group for case in divided[VALIDATION]}


def test_about_the_share_validates_and_the_seed_chooses(tmp_path: Path) -> None:
    cases = cases_of({f"patient {number}": 1 for number in range(40)})
    drawn = [
        [case.name for case in divide(cases, 0.25, seed, tmp_path / str(n))[VALIDATION]]
        for n, seed in enumerate((0, 0, 1))
    ]
    assert len(drawn[0]) == 10
    assert drawn[0] == drawn[1] != drawn[2]


def test_images_stay_on_their_side_when_others_are_labelled(tmp_path: Path) -> None:
    early = cases_of({f"early {number}": 1 for number in range(5)})
    first = divide(early, 0.2, 0, tmp_path)
    later = divide([*cases_of({f"a late {number}": 1 for number in range(15)}), *early], 0.2, 3, tmp_path)
    assert {case.name for case in first[VALIDATION]} <= {case.name for case in later[VALIDATION]}
    assert {case.name for case in first[TRAINING]} <= {case.name for case in later[TRAINING]}
    assert len(later[VALIDATION]) == 4


def test_a_new_image_of_a_known_patient_follows_the_patient(tmp_path: Path) -> None:
    first = divide(cases_of({"anna": 1, "bert": 1, "carl": 1}), 0.3, 0, tmp_path)
    judged = first[VALIDATION][0].group
    later = divide(cases_of({"anna": 2, "bert": 2, "carl": 2}), 0.3, 0, tmp_path)
    assert {case.group for case in later[VALIDATION]} == {judged}


def test_a_class_is_learnt_before_it_is_judged(tmp_path: Path) -> None:
    strata = {"p1": "ulcer", "p2": "polyp", "p3": "polyp", "p4": "normal"}
    divided = divide(cases_of(dict.fromkeys(strata, 1), strata), 0.5, 0, tmp_path)
    assert {case.stratum for case in divided[TRAINING]} == {"ulcer", "polyp", "normal"}
    assert [case.stratum for case in divided[VALIDATION]] == ["polyp"]


def test_when_the_validation_images_are_gone_a_new_one_takes_their_place(tmp_path: Path) -> None:
    first = divide(cases_of({"a": 1, "b": 1, "c": 1}), 0.3, 0, tmp_path)
    left = {case.group: 1 for case in first[TRAINING]}
    later = divide(cases_of({**left, "new": 1}), 0.3, 0, tmp_path)
    assert [case.group for case in later[VALIDATION]] == ["new"]


def test_one_patient_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all 3 labelled images are of one patient or scene \(anna\)"):
        divide(cases_of({"anna": 3}), 0.2, 0, tmp_path)


def test_groups_come_from_the_datastore_and_from_the_pictures(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)
    store.add("a.png", noise[0])
    store.add("b.png", noise[1], patient="7")
    store.add("c.png", noise[0])  # the same scene as a
    store.add("d.png", noise[2], patient="7")
    store.add("e.png", noise[3])
    groups = {case.name: case.group for case in labelled_cases(store)}
    assert groups == {"a": "a", "c": "a", "b": "patient 7", "d": "patient 7", "e": "e"}


def test_the_class_of_an_image_is_read_and_a_damaged_label_is_named(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), dtype=np.uint8)
    store.add("a.png", noise[0], "a.json")
    store.add("b.png", noise[1], "b.json")
    (tmp_path / "a.json").write_text(json.dumps({"label": "polyp"}))
    (tmp_path / "b.json").write_text(json.dumps({"label": "ulcer"}))
    assert [case.stratum for case in labelled_cases(store)] == ["polyp", "ulcer"]
    (tmp_path / "b.json").write_text('{"label": ')
    with pytest.raises(DataError, match=r"b.json cannot be read as JSON"):
        labelled_cases(store)


def test_too_few_or_missing_files_are_a_sentence(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    with pytest.raises(DataError, match="no image is labelled, and training needs two"):
        labelled_cases(store)
    store.add("a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="one image is labelled"):
        labelled_cases(store)
    store.names.append(("b.png", "mask.png"))
    with pytest.raises(DataError, match=r"b.png is listed by the datastore and not there"):
        labelled_cases(store)


def test_a_damaged_division_is_named(tmp_path: Path) -> None:
    (tmp_path / "division.json").write_text('{"a": "test"}')
    with pytest.raises(DataError, match=r"division.json cannot be read .*: remove it"):
        divide(cases_of({"a": 1, "b": 1}), 0.2, 0, tmp_path)


@pytest.mark.parametrize(("file", "name"), [("x/scan.nii.gz", "scan"), ("scan.v2.nii", "scan.v2"), ("a.b.png", "a.b")])
def test_ids_are_those_of_the_datastore(file: str, name: str) -> None:
    assert split_name(Path(file).name)[0] == name


def test_a_request_is_read_as_clients_send_it() -> None:
    asked = TrainingRequest.read(
        {"max_epochs": "3", "pretrained": "false", "device": ["cuda"], "gpus": "0,2"}, DEFAULTS
    )
    assert (asked.epochs, asked.pretrained, asked.device, asked.gpus) == (3, False, "cuda", (0, 2))
    assert (asked.validation_share, asked.multi_gpu, asked.seed) == (0.2, True, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0), ("max_epochs", 2.5), ("max_epochs", "many"), ("max_epochs", True), ("val_split", 0),
        ("val_split", -1), ("val_split", 1), ("val_split", "x"), ("val_split", float("nan")), ("pretrained", "maybe"),
        ("gpus", "first"), ("model_filename", "../other.pt"), ("run_id", "evaluate"), ("tracking", "mlflow"),
        ("max_epochs", float("inf")),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_named(name: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=f"^{name} is "):
        TrainingRequest.read({name: value}, DEFAULTS)
