from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.endoscopy.labelled_frames import PARTS, divide_frames, frames_to_evaluate
from monai_ssl_transfer.errors import DataError

Case = dict[str, Any]


def _cases(groups: int, per_group: int = 2, classes: int = 2) -> list[Case]:
    return [
        {"name": f"g{group}-{number}", "image": "", "group": f"g{group}", "class": group % classes}
        for group in range(groups)
        for number in range(per_group)
    ]


def _names(divided: dict[str, list[Case]]) -> dict[str, list[str]]:
    return {part: [case["name"] for case in cases] for part, cases in divided.items()}


@st.composite
def _grouped(draw: st.DrawFn) -> list[Case]:
    sizes = draw(st.lists(st.integers(1, 5), min_size=15, max_size=40))
    cases = [
        {"name": f"{group}/{number}", "image": "", "group": str(group), "class": group % 3}
        for group, size in enumerate(sizes)
        for number in range(size)
    ]
    return draw(st.permutations(cases))


@settings(max_examples=40, deadline=None)
@given(_grouped(), st.integers(0, 99), st.integers(0, 99), st.floats(0.1, 1), st.sampled_from((None, "class")))
def test_no_group_on_two_sides_and_every_class_is_trained_on(
    cases: list[Case], split_seed: int, seed: int, fraction: float, stratum: str | None
) -> None:
    with tempfile.TemporaryDirectory() as run:
        settings_ = {"seed": seed, "split_seed": split_seed, "stratum": stratum}
        whole = divide_frames(cases, run, **settings_)
        part = divide_frames(cases, run, label_fraction=fraction, **settings_)
    groups = {one: {case["group"] for case in found} for one, found in whole.items()}
    assert not groups["train"] & groups["validation"] and not (groups["train"] | groups["validation"]) & groups["test"]
    assert sorted(case["name"] for found in whole.values() for case in found) == sorted(case["name"] for case in cases)
    assert part["validation"] == whole["validation"] and part["test"] == whole["test"]
    assert {case["name"] for case in part["train"]} <= {case["name"] for case in whole["train"]}
    if stratum:
        assert {case["class"] for case in part["train"]} == {0, 1, 2}


def test_seeds_share_validation_and_test_and_draw_different_nested_fractions(tmp_path: Path) -> None:
    cases = _cases(60)
    runs = {
        (seed, fraction): divide_frames(cases, tmp_path / "a", label_fraction=fraction, seed=seed)
        for seed in (0, 1, 2)
        for fraction in (0.1, 0.5, 1.0)
    }
    for part in ("validation", "test"):
        assert len({tuple(_names(divided)[part]) for divided in runs.values()}) == 1
    assert len({tuple(_names(runs[seed, 0.1])["train"]) for seed in (0, 1, 2)}) == 3
    for seed in (0, 1, 2):
        small, half, whole = (set(_names(runs[seed, fraction])["train"]) for fraction in (0.1, 0.5, 1.0))
        assert small < half < whole and len(small) == round(0.1 * 36) * 2
    other = divide_frames(cases, tmp_path / "b", split_seed=1)
    assert _names(other)["test"] != _names(runs[0, 1.0])["test"]


def test_the_division_is_kept_whatever_the_order_of_the_cases_and_refused_when_they_change(tmp_path: Path) -> None:
    cases = _cases(12)
    first = _names(divide_frames(cases, tmp_path, stratum="class"))
    again = _names(divide_frames(cases[::-1], tmp_path, stratum="class"))
    assert {part: sorted(found) for part, found in again.items()} == {part: sorted(f) for part, f in first.items()}
    with pytest.raises(DataError, match=r"split\.json was written for other cases"):
        divide_frames(cases[:-1], tmp_path, stratum="class")
    with pytest.raises(DataError, match=r"split\.json was drawn with seed 0"):
        divide_frames(cases, tmp_path, stratum="class", split_seed=1)


def test_without_test_part_or_validation(tmp_path: Path) -> None:
    divided = divide_frames(_cases(10), tmp_path / "a", test_fraction=0)
    assert not divided["test"] and len(divided["validation"]) == 4 and len(divided["train"]) == 16
    divided = divide_frames(_cases(10), tmp_path / "b", test_fraction=0, validation_fraction=0)
    assert len(divided["train"]) == 20 and not divided["validation"]


def test_the_log_tells_images_and_groups_and_a_class_that_a_part_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = _cases(20, classes=1)
    cases += [{"name": f"rare-{n}", "image": "", "group": f"rare-{n}", "class": 7} for n in range(2)]
    with caplog.at_level(logging.INFO):
        divided = divide_frames(cases, tmp_path, stratum="class")
    assert any(case["class"] == 7 for case in divided["train"])
    lacking = [part for part in PARTS if not any(case["class"] == 7 for case in divided[part])]
    assert lacking  # two groups cannot be in three parts
    record = json.loads((tmp_path / "frames.json").read_text())
    for part in PARTS:
        groups = len({case["group"] for case in divided[part]})
        assert f"{part}: {len(divided[part])} photographs of {groups} groups" in caplog.text
        assert record[f"{part}_lacks"] == (["7"] if part in lacking else [])
        assert (f"{part} has no photograph of class 7" in caplog.text) == (part in lacking)
    assert {part: record[part] for part in PARTS} == _names(divided)


def test_frames_with_and_without_mask_are_a_stratum(tmp_path: Path) -> None:
    cases = [
        {"name": str(n), "image": "", "group": str(n), "label": f"{n}.png" if n % 5 == 0 else ""} for n in range(50)
    ]
    divided = divide_frames(cases, tmp_path, stratum="label")
    assert [sum(bool(case["label"]) for case in divided[part]) for part in PARTS] == [6, 2, 2]


def test_named_groups_are_held_out_and_the_rest_is_drawn(tmp_path: Path) -> None:
    cases = _cases(12)
    divided = divide_frames(cases, tmp_path, test_groups=["g3", "g5"], stratum="class")
    assert {case["group"] for case in divided["test"]} == {"g3", "g5"}
    assert len(divided["validation"]) == 2 * 2 and len(divided["train"]) == 8 * 2


def test_named_cases_from_a_file_and_their_siblings_are_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = tmp_path / "val.txt"
    listed.write_text("g0-0\ng1-0\ng1-1.jpg\n")
    divided = divide_frames(_cases(8), tmp_path / "run", test_fraction=0, validation_groups=str(listed))
    assert _names(divided)["validation"] == ["g0-0", "g1-0", "g1-1"]
    assert "g0-1" not in {name for names in _names(divided).values() for name in names}
    assert json.loads((tmp_path / "run" / "frames.json").read_text())["left_out"] == ["g0-1"]
    assert "1 photographs are left out" in caplog.text
    assert len(divided["train"]) == 6 * 2


def test_names_that_cannot_be(tmp_path: Path) -> None:
    cases = _cases(6)
    with pytest.raises(DataError, match="test_groups names g9, which is neither"):
        divide_frames(cases, tmp_path, test_groups=["g9"])
    with pytest.raises(DataError, match="g1-0 is named for test and for validation"):
        divide_frames(cases, tmp_path, test_groups=["g1"], validation_groups=["g1-0"])
    with pytest.raises(DataError, match="g1-0 is named for validation and g1-1 of the same group g1 for test"):
        divide_frames(cases, tmp_path, test_groups=["g1-1"], validation_groups=["g1-0"])
    with pytest.raises(DataError, match="No photograph is left"):
        divide_frames(cases, tmp_path, test_groups=[f"g{n}" for n in range(6)])
    with pytest.raises(DataError, match="No photograph of class 1 is left to train on"):
        divide_frames(cases, tmp_path, test_groups=["g1", "g3", "g5"], test_fraction=0, stratum="class")
    with pytest.raises(DataError, match="No case is of fold 1: give the split file"):
        divide_frames(cases, tmp_path, test_fold=1)
    with pytest.raises(DataError, match="have no 'label'"):
        divide_frames(cases, tmp_path, stratum="label")
    with pytest.raises(DataError, match="no photographs to divide"):
        divide_frames([], tmp_path)
    with pytest.raises(DataError, match="both claim case g0-0"):
        divide_frames([*cases, cases[0]], tmp_path)


def test_the_evaluation_takes_the_recorded_part(tmp_path: Path) -> None:
    cases = _cases(12)
    divided = divide_frames(cases, tmp_path, label_fraction=0.5)
    for part in PARTS:
        found = frames_to_evaluate(cases, tmp_path, part)
        assert found == {"train": divided["train"], "evaluate": divided[part]}
    assert frames_to_evaluate(cases, tmp_path / "elsewhere", "all")["evaluate"] == cases
    fewer = [case for case in cases if case["name"] != divided["test"][0]["name"]]
    with pytest.raises(DataError, match=f"lists {divided['test'][0]['name']} for test, which the data set lacks"):
        frames_to_evaluate(fewer, tmp_path)
    assert frames_to_evaluate(fewer, tmp_path, "validation")["evaluate"] == divided["validation"]
    with pytest.raises(DataError, match="the part 'tests' is unknown"):
        frames_to_evaluate(cases, tmp_path, "tests")
    with pytest.raises(DataError, match=r"there is no .*frames\.json"):
        frames_to_evaluate(cases, tmp_path / "elsewhere")
    divide_frames(cases, tmp_path / "no-test", test_fraction=0)
    with pytest.raises(DataError, match="has no case for test"):
        frames_to_evaluate(cases, tmp_path / "no-test")


def test_the_evaluation_knows_the_groups_of_the_training(tmp_path: Path) -> None:
    """It looks for no near-duplicates again; without their groups its intervals would be too narrow."""
    cases = [{"name": f"c{n}", "group": f"g{n // 3}", "image": f"c{n}.png"} for n in range(30)]
    divided = divide_frames(cases, tmp_path)
    alone = [{**case, "group": case["name"]} for case in cases]  # as listed without looking for duplicates
    found = frames_to_evaluate(alone, tmp_path, "test")
    assert found["evaluate"] == divided["test"] and found["train"] == divided["train"]
    assert {case["group"] for case in found["evaluate"]} < {f"g{n}" for n in range(10)}
    record = json.loads((tmp_path / "frames.json").read_text())
    older = {key: value for key, value in record.items() if not key.endswith("_groups")}
    (tmp_path / "frames.json").write_text(json.dumps(older))
    assert frames_to_evaluate(alone, tmp_path, "test")["evaluate"] == [
        alone[int(one["name"][1:])] for one in divided["test"]
    ]
