"""Class folders with and without parts: classes, official parts, groups, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from monai_ssl_transfer.data.images.class_record import class_names, record_classes, several_findings
from monai_ssl_transfer.data.images.division import divide_images
from monai_ssl_transfer.data.images.image_folder import folder_cases, folder_classes
from monai_ssl_transfer.data.phantoms.image_layouts import write_image_folder
from monai_ssl_transfer.errors import DataError

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def test_official_parts_are_held_to_and_validation_is_drawn(tmp_path: Path):
    folder = write_image_folder(tmp_path / "brain", images_per_class=5)
    assert folder_classes(folder) == CLASSES
    cases = folder_cases(folder, CLASSES)
    assert len(cases) == 40
    assert all(Path(case["image"]).parent.name == CLASSES[case["class"]] for case in cases)
    divided = divide_images(cases, tmp_path / "run", validation_fraction=0.2, stratum="class")
    assert {case["name"].split("/")[0] for case in divided["test"]} == {"Testing"}
    assert {case["name"].split("/")[0] for part in ("train", "validation") for case in divided[part]} == {"Training"}
    assert [len(divided[part]) for part in ("train", "validation", "test")] == [16, 4, 20]
    assert {case["class"] for case in divided["validation"]} == set(range(4))
    drawn = divide_images(cases, tmp_path / "other", official_parts=False, test_fraction=0.25, stratum="class")
    assert len({case["name"].split("/")[0] for case in drawn["test"]}) == 2


def test_the_validation_folder_of_imagenet_is_its_test(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    wnids = ("n01440764", "n02102040", "n03445777")
    folder = write_image_folder(tmp_path / "Data" / "CLS-LOC", wnids, 3, ("train", "val"))
    (folder / "test").mkdir()
    (folder / "test" / "ILSVRC2012_test_1.JPEG").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        cases = folder_cases(tmp_path / "Data", wnids, val_is_test=True)
    assert "has no class folders: its images have no labels" in caplog.text
    assert {case.get("part") for case in cases} == {"train", "test"}
    assert {case["part"] for case in folder_cases(folder, wnids)} == {"train", "validation"}
    assert folder_classes(folder, ["n03445777", "n01440764"]) == ("n03445777", "n01440764")
    with caplog.at_level(logging.WARNING):
        chosen = folder_cases(folder, ("n03445777",))
    assert {case["class"] for case in chosen} == {0}
    assert "2 class folders are none of the classes and are left out: n01440764, n02102040" in caplog.text
    flat = tmp_path / "flat"
    write_image_folder(flat, wnids, 1, ("train",))
    (flat / "val").mkdir()
    with pytest.raises(DataError, match=r"val has no class folders: sort its images"):
        folder_cases(flat, wnids)


def test_a_class_without_image_is_refused_unless_another_set_is_judged(tmp_path: Path):
    folder = write_image_folder(tmp_path, images_per_class=1, parts=())
    (folder / "glioma" / "glioma_0.jpg").unlink()
    with pytest.raises(DataError, match=r"no image of the class glioma to train on \(1 such\)"):
        folder_cases(folder, folder_classes(folder))
    assert {case["class"] for case in folder_cases(folder, CLASSES, every_class=False)} == {1, 2, 3}
    with pytest.raises(DataError, match="chosen_classes names astrocytoma"):
        folder_classes(folder, ["astrocytoma"])
    with pytest.raises(DataError, match="holds no folder of a class"):
        folder_classes(folder / "glioma")
    with pytest.raises(DataError, match=r"none of the classes other: add configs/tasks/image_folder\.json"):
        folder_cases(folder, ("other",))


def test_patients_in_names_stay_on_one_side(tmp_path: Path):
    folder = write_image_folder(tmp_path, ("a", "b"), 12, ())
    cases = folder_cases(folder, ("a", "b"), group_pattern=r"([ab]_\d)")
    assert {case["group"] for case in cases} == {f"{name}_{number}" for name in "ab" for number in range(10)}
    assert len([case for case in cases if case["group"] == "a_1"]) == 3  # 1, 10, 11
    with pytest.raises(DataError, match=r"a_0\.jpg has no patient by group_pattern"):
        folder_cases(folder, ("a", "b"), group_pattern=r"patient(\d+)")
    with pytest.raises(DataError, match="marks no patient"):
        folder_cases(folder, ("a", "b"), group_pattern="a_")
    with pytest.raises(DataError, match="no regular expression"):
        folder_cases(folder, ("a", "b"), group_pattern="(")


def test_a_run_remembers_the_names_of_its_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert class_names(None, ["x", "y"]) == ("x", "y")
    record_classes(["b", "a"], True, tmp_path)
    assert class_names(tmp_path, ["x", "y"]) == ("b", "a")
    assert several_findings(tmp_path) is True
    with caplog.at_level(logging.WARNING):
        assert class_names(tmp_path / "other", ["x", "y"]) == ("x", "y")
    assert "the classes are called x, y" in caplog.text
    (tmp_path / "classes.json").write_text(json.dumps({"class_names": 3}))
    with pytest.raises(DataError, match="does not list the classes of a run"):
        class_names(tmp_path, ["x", "y"])
    with pytest.raises(DataError, match="each another"):
        class_names(None, ["x", "x"])
