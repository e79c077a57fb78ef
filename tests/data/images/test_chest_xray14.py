"""ChestX-ray14: findings, patients and official lists, and every way in which the files can contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_ssl_transfer.data.class_balance import class_support, finding_targets, positive_weights
from monai_ssl_transfer.data.endoscopy.frames import read_frame
from monai_ssl_transfer.data.images.chest_xray14 import chest_xray_cases, finding_names
from monai_ssl_transfer.data.images.division import divide_images
from monai_ssl_transfer.data.phantoms.image_layouts import write_chest_xray14
from monai_ssl_transfer.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_chest_xray14(tmp_path / "nih", patients=30, size=16)


def test_findings_patients_and_official_test(folder: Path, tmp_path: Path):
    cases = chest_xray_cases(folder)
    names = finding_names()
    assert len(names) == 14
    rows = [line.split(",") for line in (folder / "Data_Entry_2017.csv").read_text().splitlines()[1:]]
    for case, row in zip(cases, rows, strict=True):
        shown = {name for name, one in zip(names, case["class"], strict=True) if one}
        assert (case["name"], case["group"]) == (row[0], f"patient-{row[3]}")
        assert shown == set(row[1].split("|")) - {"No Finding"}
        assert case["stratum"] in (shown or {"No Finding"})
    divided = divide_images(cases, tmp_path / "run", validation_fraction=0.2, stratum="stratum")
    official = set((folder / "test_list.txt").read_text().split())
    assert {case["name"] for case in divided["test"]} == official
    patients = [{case["group"] for case in divided[part]} for part in ("train", "validation", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 30
    support = class_support(divided, names)
    targets = finding_targets(divided["train"], names)
    assert list(support["train"].values()) == targets.sum(axis=0).tolist()
    weights = positive_weights(targets, "loss")
    assert weights is not None
    positives = targets[:, 2].sum()
    assert float(weights[2]) == pytest.approx((len(targets) - positives) / positives)
    assert positive_weights(targets, "none") is None
    with pytest.raises(DataError, match="cannot make several findings equally frequent"):
        positive_weights(targets, "sampler")


def test_label_sets(folder: Path):
    eight = chest_xray_cases(folder, "chestxray8", no_finding=True)
    fourteen = chest_xray_cases(folder)
    for few, many in zip(eight, fourteen, strict=True):
        assert few["class"] == [*many["class"][:8], int(not any(many["class"]))]
    assert finding_names("chestxray8") == finding_names()[:8]
    with pytest.raises(DataError, match="label set 'nih' is unknown"):
        finding_names("nih")


def test_16_bit_grey_is_stretched_and_8_bit_grey_is_not(folder: Path):
    shallow, deep = (next(folder.rglob(f"00000001_{number:03d}.png")) for number in range(2))
    assert read_frame(shallow, stretch=True).max() == read_frame(shallow).max() == 230
    assert read_frame(deep).max() < 10  # the high byte of 12 bits
    stretched = read_frame(deep, stretch=True)
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert np.array_equal(stretched[..., 0], stretched[..., 2])


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: next(folder.rglob(name)).unlink()


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return change


def move_to_test(folder: Path) -> None:
    """The second image of patient 1, whose first stays in the training list."""
    replace("train_val_list.txt", "00000001_001.png\n", "")(folder)
    with (folder / "test_list.txt").open("a") as stream:
        stream.write("00000001_001.png\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("Data_Entry_2017.csv"), "holds no Data_Entry_2017.csv"),
        (
            remove("00000003_000.png"),
            r"lists 00000003_000\.png, which is in no folder images .*unpack the other archives",
        ),
        (replace("Data_Entry_2017.csv", "00000003_000.png", "00000003_009.png"), r"00000003_000\.png is not listed in"),
        (replace("Data_Entry_2017.csv", "00000003_001.png", "00000003_000.png"), r"lists 00000003_000\.png twice"),
        (replace("Data_Entry_2017.csv", "No Finding", "Nothing"), "unknown finding 'Nothing' in line 3"),
        (replace("Data_Entry_2017.csv", "No Finding", "No Finding|Mass"), "beside another finding in line 3"),
        (replace("Data_Entry_2017.csv", "Patient ID", "Patient"), "has no rows with Image Index"),
        (remove("test_list.txt"), r"test_list\.txt cannot be read.*official_parts to false"),
        (replace("test_list.txt", "00000005_000.png\n", ""), r"00000005_000\.png is neither in train_val_list"),
        (replace("test_list.txt", "00000005_000.png", "90000005_000.png"), r"test_list\.txt lists 90000005_000\.png"),
        (move_to_test, r"patient 1 is in train_val_list\.txt and in test_list\.txt"),
    ],
)
def test_what_contradicts_is_refused_by_name(damage: Callable[[Path], None], message: str, folder: Path):
    damage(folder)
    with pytest.raises(DataError, match=message):
        chest_xray_cases(folder)


def test_a_share_of_the_archives_and_own_parts_are_asked_for(folder: Path):
    remove("00000003_000.png")(folder)
    remove("test_list.txt")(folder)
    cases = chest_xray_cases(folder, official_parts=False, only_present=True)
    assert len(cases) == 59
    assert not any("part" in case for case in cases)
