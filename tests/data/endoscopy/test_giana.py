from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ssl_transfer.data.endoscopy.giana import angiodysplasia_cases
from monai_ssl_transfer.errors import DataError


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _mask(path: Path, lesion: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((32, 32), np.uint8)
    pixels[8:16, 8:16] = 255 if lesion else 0
    Image.fromarray(pixels).save(path)


def _giana(folder: Path, name: str = "angyodysplasia") -> Path:
    lesions, normal = folder / "train" / name, folder / "train" / "normal"
    _touch(lesions / "images" / "1103.jpg", lesions / "masks" / "1103_a.jpg")
    _touch(lesions / "images" / "98.png", lesions / "masks" / "98.jpg")
    _touch(lesions / "images" / "7.png", lesions / "masks" / "7_a.png")
    _touch(normal / "images" / "expert10.png", normal / "images" / "expert2.png", folder / "test" / "1.png")
    return folder / "train"


@pytest.mark.parametrize("name", ["angyodysplasia", "angiodysplasia"])
def test_masks_with_and_without_suffix_in_both_formats_and_normal_frames_without(tmp_path: Path, name: str) -> None:
    train = _giana(tmp_path / "data", name)
    cases = angiodysplasia_cases(tmp_path, duplicate_threshold=None)
    assert [case["name"] for case in cases] == [
        *(f"angiodysplasia-{number}" for number in (7, 98, 1103)),
        *(f"normal-expert{number}" for number in (2, 10)),
    ]
    assert [Path(case["label"]).name for case in cases] == ["7_a.png", "98.jpg", "1103_a.jpg", "", ""]
    assert [case["label"] for case in cases[3:]] == ["", ""] and [case["class"] for case in cases] == [1, 1, 1, 0, 0]
    assert angiodysplasia_cases(train, duplicate_threshold=None) == cases


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_black_masks_of_normal_frames_count_as_none_and_others_are_refused(tmp_path: Path, suffix: str) -> None:
    masks = _giana(tmp_path) / "normal" / "masks"
    _mask(masks / f"expert2{suffix}", lesion=False)
    assert [case["label"] for case in angiodysplasia_cases(tmp_path, None) if case["class"] == 0] == ["", ""]
    _mask(masks / f"expert10_a{suffix}", lesion=True)
    with pytest.raises(DataError, match=rf"expert10_a\{suffix} shows a lesion"):
        angiodysplasia_cases(tmp_path, None)
    (masks / f"expert10_a{suffix}").unlink()
    _mask(masks / f"expert11{suffix}", lesion=False)
    with pytest.raises(DataError, match="lists expert11, which has no normal frame"):
        angiodysplasia_cases(tmp_path, None)


def test_missing_partners_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    train = _giana(tmp_path)
    _touch(train / "angyodysplasia" / "images" / "5.png")
    with pytest.raises(DataError, match=r"images/5\.png has no mask"):
        angiodysplasia_cases(tmp_path, None)
    _touch(train / "angyodysplasia" / "masks" / "5_a.jpg", train / "angyodysplasia" / "masks" / "6_a.jpg")
    with pytest.raises(DataError, match=r"masks/6_a\.jpg has no photograph"):
        angiodysplasia_cases(tmp_path, None)
    _touch(train / "angyodysplasia" / "images" / "6.png", train / "angyodysplasia" / "masks" / "6.jpg")
    with pytest.raises(DataError, match="both claim case 6"):
        angiodysplasia_cases(tmp_path, None)


def test_an_empty_or_missing_class_is_refused(tmp_path: Path) -> None:
    train = _giana(tmp_path)
    for image in (train / "normal" / "images").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"normal/images holds no frame"):
        angiodysplasia_cases(tmp_path, None)
    (train / "normal" / "images").rmdir()
    (train / "normal").rmdir()
    with pytest.raises(DataError, match="lacks the folder normal"):
        angiodysplasia_cases(tmp_path, None)
    with pytest.raises(DataError, match="holds no folder angyodysplasia beside normal"):
        angiodysplasia_cases(train / "angyodysplasia", None)
    _touch(train / "normal" / "images" / "1.png", train / "angiodysplasia" / "images" / "1.png")
    with pytest.raises(DataError, match="both hold angiodysplasia"):
        angiodysplasia_cases(tmp_path, None)
