"""Lungs with masks in parallel folders, CT slices by patient, and the transforms of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise_frames
from monai_ssl_transfer.data.images.image_transforms import ClassTargetd, LoadMergedMaskd
from monai_ssl_transfer.data.images.masked_images import masked_cases
from monai_ssl_transfer.data.images.sars_cov2_ct import covid_cases
from monai_ssl_transfer.data.phantoms.image_layouts import write_montgomery, write_sars_cov2_ct, write_shenzhen
from monai_ssl_transfer.errors import DataError

MONTGOMERY = {
    "image_folder": "CXR_png",
    "mask_folders": ("ManualMask/leftMask", "ManualMask/rightMask"),
    "stratum_pattern": "_([01])$",
}
SHENZHEN = {"image_folder": "CXR_png", "mask_folders": ("mask",), "mask_suffix": "_mask"}


def test_left_and_right_lung_are_one_mask(tmp_path: Path):
    folder = write_montgomery(tmp_path / "MontgomerySet", 12)
    cases = masked_cases(tmp_path, **MONTGOMERY)
    assert [case["name"] for case in cases[:2]] == ["MCUCXR_0001_0", "MCUCXR_0002_1"]
    merged = LoadMergedMaskd("label")(cases[0])["label"]
    name = "MCUCXR_0001_0.png"
    left, right = (np.asarray(Image.open(folder / "ManualMask" / f"{one}Mask" / name)) > 0 for one in ("left", "right"))
    assert left.any() and right.any() and not (left & right).any()
    assert torch.equal(merged[0].bool(), torch.from_numpy(left | right))
    divided = divide_frames(cases, tmp_path / "run", 1.0, 0.167, 0.333, stratum="stratum")
    assert [len(divided[part]) for part in ("train", "validation", "test")] == [6, 2, 4]
    assert sorted(case["stratum"] for case in divided["test"]) == ["0", "0", "1", "1"]


def test_shenzhen_has_masks_of_some_images(tmp_path: Path):
    folder = write_shenzhen(tmp_path, 6, unmasked=2)
    with pytest.raises(DataError, match=r"CHNCXR_0005_0\.png has no mask in .*\(2 such\)"):
        masked_cases(folder, **SHENZHEN)
    cases = masked_cases(folder, **SHENZHEN, unmasked="leave_out")
    assert [case["name"] for case in cases] == [f"CHNCXR_{number:04d}_{(number - 1) % 2}" for number in range(1, 5)]
    assert all(case["label"].endswith("_mask.png") for case in cases)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "ManualMask/leftMask/MCUCXR_0002_1.png").unlink(), r"has no mask in .*leftMask but"),
        (lambda f: (f / "CXR_png/MCUCXR_0002_1.png").unlink(), r"leftMask/MCUCXR_0002_1\.png is the mask of no image"),
        (lambda f: (f / "ManualMask").rename(f / "Masks"), "holds no folder ManualMask/leftMask with images"),
        (lambda f: [one.rename(one.with_name(one.name.replace("_0.", "_x."))) for one in f.rglob("*_0.png")],
         "does not fit stratum_pattern"),
    ],
)  # fmt: skip
def test_pairs_that_do_not_fit_are_refused(damage: Callable[[Path], object], message: str, tmp_path: Path):
    folder = write_montgomery(tmp_path, 3)
    damage(folder)
    with pytest.raises(DataError, match=message):
        masked_cases(folder, **MONTGOMERY)
    with pytest.raises(DataError, match="unmasked 'skip' is unknown"):
        masked_cases(folder, unmasked="skip")


def test_ct_slices_of_a_patient_are_one_volume(tmp_path: Path):
    cases = covid_cases(write_sars_cov2_ct(tmp_path, patients=2, slices=3))
    assert len(cases) == 18
    assert len({case["volume"] for case in cases}) == 6
    assert all(case["group"] == case["volume"] == str(Path(case["name"]).parent) for case in cases)
    assert {case["name"].split("/")[0]: case["class"] for case in cases} == {"Covid": 1, "Healthy": 0, "Others": 0}
    Image.new("L", (4, 4)).save(tmp_path / "Covid" / "alone.png")
    with pytest.raises(DataError, match=r"alone\.png lies in no folder of a patient"):
        covid_cases(tmp_path)


def test_ct_slices_without_patients(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_sars_cov2_ct(tmp_path / "set", patients=2, slices=2, folders=False)
    cases = covid_cases(tmp_path)
    assert "names no patients" in caplog.text
    assert sorted(case["class"] for case in cases) == [0] * 4 + [1] * 4
    assert not any("volume" in case for case in cases)
    for path in (folder / "non-COVID").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="non-COVID holds no slice"):
        covid_cases(tmp_path)
    (folder / "non-COVID").rmdir()
    with pytest.raises(DataError, match="has no slice of the class non-COVID"):
        covid_cases(tmp_path)
    with pytest.raises(DataError, match="holds no folder COVID"):
        covid_cases(folder / "COVID")


def test_targets_and_channels():
    one = ClassTargetd("class")({"class": 3, "name": "a"})
    assert (one["label"].dtype, int(one["label"]), one["volume"]) == (torch.int64, 3, "a")
    several = ClassTargetd("class")({"class": [0, 1], "name": "a", "volume": "v"})
    assert (several["label"].tolist(), several["volume"]) == ([0.0, 1.0], "v")
    grey = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    expected = np.mean([(100 / 255 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)])
    assert normalise_frames(grey, 1).shape == (1, 2, 2)
    assert float(normalise_frames(grey, 1)[0, 0, 0]) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match="1 or 3 channels, not 2"):
        normalise_frames(grey, 2)
