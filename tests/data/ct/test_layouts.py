from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_ssl_transfer.data.ct.layouts import check_label_values, liver_cases
from monai_ssl_transfer.errors import DataError


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_flat_lits_in_numeric_order_with_both_suffixes_and_macos_companions(tmp_path: Path) -> None:
    for number, suffix in ((10, ".nii"), (2, ".nii.gz"), (1, ".nii")):
        _touch(tmp_path / f"volume-{number}{suffix}", tmp_path / f"segmentation-{number}{suffix}")
    _touch(tmp_path / "._volume-3.nii", tmp_path / "._segmentation-1.nii", tmp_path / "notes.txt")
    _touch(tmp_path / "test-volume-0.nii", tmp_path / ".hidden" / "volume-9.nii")
    cases = liver_cases(tmp_path)
    assert [case["case"] for case in cases] == ["1", "2", "10"]
    assert cases[1] == {
        "case": "2",
        "image": str(tmp_path / "volume-2.nii.gz"),
        "label": str(tmp_path / "segmentation-2.nii.gz"),
    }


def test_batch_folders_and_images_labels_mirror(tmp_path: Path) -> None:
    for number, batch in ((0, "Training Batch 1"), (28, "Training Batch 2")):
        _touch(tmp_path / "a" / batch / f"volume-{number}.nii", tmp_path / "a" / batch / f"segmentation-{number}.nii")
    _touch(tmp_path / "b" / "imagesTr" / "volume-5.nii.gz", tmp_path / "b" / "labelsTr" / "segmentation-5.nii.gz")
    assert [case["case"] for case in liver_cases(tmp_path / "a")] == ["0", "28"]
    assert liver_cases(tmp_path / "b")[0]["label"].endswith("labelsTr/segmentation-5.nii.gz")


def test_a_missing_partner_is_named(tmp_path: Path) -> None:
    _touch(tmp_path / "volume-0.nii", tmp_path / "segmentation-0.nii", tmp_path / "volume-1.nii")
    with pytest.raises(DataError, match=r"volume-1\.nii has no segmentation-1"):
        liver_cases(tmp_path)
    _touch(tmp_path / "segmentation-1.nii", tmp_path / "segmentation-2.nii")
    with pytest.raises(DataError, match=r"segmentation-2\.nii has no volume-2"):
        liver_cases(tmp_path)


def test_a_case_twice_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path / "volume-0.nii", tmp_path / "segmentation-0.nii", tmp_path / "copy" / "volume-0.nii.gz")
    with pytest.raises(DataError, match="both claim case 0"):
        liver_cases(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.json"):
        liver_cases(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        liver_cases(tmp_path / "missing")
    with pytest.raises(DataError, match="no NIfTI volume"):
        liver_cases(tmp_path, unlabelled=True)


def _decathlon(folder: Path, numbers: tuple[int, ...], **extra: object) -> Path:
    training = []
    for number in numbers:
        image, label = f"./imagesTr/liver_{number}.nii.gz", f"./labelsTr/liver_{number}.nii.gz"
        _touch(folder / image, folder / label, folder / "imagesTr" / f"._liver_{number}.nii.gz")
        training.append({"image": image, "label": label})
    described = folder / "dataset.json"
    described.write_text(json.dumps({"name": "LIVER", "training": training, "numTest": 1, **extra}))
    return described


def test_decathlon_in_numeric_order(tmp_path: Path) -> None:
    _decathlon(tmp_path, (10, 9, 0), test=["./imagesTs/liver_132.nii.gz"])
    cases = liver_cases(tmp_path)
    assert [case["case"] for case in cases] == ["0", "9", "10"]
    assert Path(cases[2]["label"]) == tmp_path / "labelsTr" / "liver_10.nii.gz"
    with pytest.raises(DataError, match="liver_132"):
        liver_cases(tmp_path, unlabelled=True)
    _touch(tmp_path / "imagesTs" / "liver_132.nii.gz")
    assert [case["case"] for case in liver_cases(tmp_path, unlabelled=True)] == ["0", "9", "10", "132"]


def test_decathlon_defects_are_named(tmp_path: Path) -> None:
    described = _decathlon(tmp_path, (0, 1))
    (tmp_path / "labelsTr" / "liver_1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"liver_1\.nii\.gz is missing but .*dataset\.json"):
        liver_cases(tmp_path)
    _touch(tmp_path / "labelsTr" / "liver_1.nii")  # unpacked by hand
    assert liver_cases(tmp_path)[1]["label"].endswith("liver_1.nii")
    for text in ("{", "[]", '{"test": []}', '{"training": [{"image": "x.nii"}]}', '{"training": []}'):
        described.write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json"):
            liver_cases(tmp_path)


def test_what_can_be_segmented(tmp_path: Path) -> None:
    _touch(tmp_path / "lits" / "volume-1.nii", tmp_path / "lits" / "test-volume-0.nii")
    assert [case["case"] for case in liver_cases(tmp_path / "lits", unlabelled=True)] == ["1", "test-0"]
    _touch(
        tmp_path / "any" / "scan10.nii.gz", tmp_path / "any" / "scan2.nii.gz", tmp_path / "any" / "scan2_mask.nii.gz"
    )
    _touch(tmp_path / "any" / "scan2_seg_fast.nii", tmp_path / "any" / "labels" / "scan2.nii")
    cases = liver_cases(tmp_path / "any", unlabelled=True)
    assert [case["case"] for case in cases] == ["scan2", "scan10"]
    assert all("label" not in case for case in cases)
    single = liver_cases(tmp_path / "any" / "scan2.nii.gz", unlabelled=True)
    assert single == [{"case": "scan2", "image": str(tmp_path / "any" / "scan2.nii.gz")}]


def test_foreign_label_values_are_refused() -> None:
    check_label_values(np.array([0, 1, 2], np.uint8), "segmentation-0.nii")
    with pytest.raises(DataError, match=r"segmentation-0\.nii holds the label values 5, 255"):
        check_label_values(np.array([0, 5, 255], np.uint8), "segmentation-0.nii")
