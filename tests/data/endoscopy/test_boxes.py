from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import regionprops
from torchvision.ops import masks_to_boxes

from monai_ssl_transfer.data.endoscopy.boxes import boxes_of_mask, polyp_box_cases
from monai_ssl_transfer.errors import DataError

SIZE = (60, 40)  # columns, rows


def _picture(path: Path, size: tuple[int, int] = SIZE, *filled: tuple[slice, slice]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    for place in filled:
        pixels[place] = 255
    Image.fromarray(pixels).save(path)


def _box(xmin: float, ymin: float, xmax: float, ymax: float, **other: Any) -> dict[str, Any]:
    return {"label": "polyp", "xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax, **other}


def _published(folder: Path, *boxes: dict[str, Any], file: str = "kavsir_bboxes.json", **size: int) -> Path:
    _picture(folder / "images" / "a.png")
    stated = {"height": SIZE[1], "width": SIZE[0], **size} if file.startswith("kav") or size else {}
    (folder / file).write_text(json.dumps({"a": {**stated, "bbox": list(boxes)}}))
    return folder


@pytest.mark.parametrize("file", ["kavsir_bboxes.json", "bounding-boxes.json"])
def test_published_boxes_of_both_sets(tmp_path: Path, file: str) -> None:
    folder = _published(tmp_path / "segmented-images", _box(0, 5, 60, 40), _box(10, 1, 12, 9), file=file)
    cases = polyp_box_cases(tmp_path, duplicate_threshold=None)
    image = str(folder / "images" / "a.png")
    assert cases == [{"name": "a", "image": image, "boxes": [[0, 5, 60, 40], [10, 1, 12, 9]], "class": 1, "group": "a"}]
    assert all(isinstance(edge, float) for box in cases[0]["boxes"] for edge in box)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (_box(0, 5, 61, 40), r"a\.png the box .*outside its 60 x 40 pixels"),
        (_box(-1, 5, 10, 40), "outside its"),
        (_box(0, 5, 10, 41), "outside its"),
        (_box(20, 5, 10, 40), r"a\.png the box .*inverted"),
        (_box(0, 9, 10, 9), "inverted or empty"),
        (_box(0, 5, float("nan"), 40), "outside its"),
        (_box(0, 5, 10, 40, label="ulcer"), "'ulcer', not polyp"),
        ({"label": "polyp", "xmin": 0}, r"no list of boxes for a\.png"),
    ],
)
def test_wrong_boxes_are_refused_by_name(tmp_path: Path, box: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        polyp_box_cases(_published(tmp_path, _box(0, 0, 5, 5), box))


def test_boxes_of_an_image_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 60 x 40 pixels but .* gives boxes for 120 x 80"):
        polyp_box_cases(_published(tmp_path, _box(0, 0, 5, 5), height=80, width=120))


def test_entries_and_photographs_without_partner_are_refused(tmp_path: Path) -> None:
    _published(tmp_path, _box(0, 0, 5, 5))
    _picture(tmp_path / "images" / "b.png")
    with pytest.raises(DataError, match=r"b\.png is not listed in"):
        polyp_box_cases(tmp_path)
    (tmp_path / "images" / "b.png").unlink()
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "c.png")
    with pytest.raises(DataError, match=r"kavsir_bboxes\.json lists a, which has no photograph"):
        polyp_box_cases(tmp_path)
    (tmp_path / "kavsir_bboxes.json").write_text("[")
    with pytest.raises(DataError, match="is not a JSON file"):
        polyp_box_cases(tmp_path)


def test_boxes_of_masks_with_specks_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _picture(tmp_path / "images" / "a.png", (200, 100))
    # two polyps and two specks of 1 pixel of 20,000, the second polyp joined at a corner
    parts = [np.s_[10:20, 5:50], np.s_[40:50, 60:70], np.s_[50:60, 70:80], np.s_[0:1, 0:1], np.s_[99:100, 199:200]]
    _picture(tmp_path / "masks" / "a.png", (200, 100), *parts)
    _picture(tmp_path / "images" / "b.png", (200, 100))
    _picture(tmp_path / "masks" / "b.png", (200, 100))
    with caplog.at_level(logging.INFO):
        cases = polyp_box_cases(tmp_path, duplicate_threshold=None)
    assert [case["boxes"] for case in cases] == [[[5, 10, 50, 20], [60, 40, 80, 60]], []]
    assert "2 boxes from 2 masks; 2 specks" in caplog.text


def test_masks_are_taken_though_there_is_a_file_and_the_file_though_there_are_masks(tmp_path: Path) -> None:
    _published(tmp_path, _box(1, 2, 3, 4))
    _picture(tmp_path / "masks" / "a.png", SIZE, np.s_[10:20, 5:50])
    assert polyp_box_cases(tmp_path, "masks", duplicate_threshold=None)[0]["boxes"] == [[5, 10, 50, 20]]
    assert polyp_box_cases(tmp_path, "auto", duplicate_threshold=None)[0]["boxes"] == [[1, 2, 3, 4]]
    (tmp_path / "kavsir_bboxes.json").unlink()
    assert polyp_box_cases(tmp_path, "auto", duplicate_threshold=None)[0]["boxes"] == [[5, 10, 50, 20]]
    with pytest.raises(DataError, match=r"holds none of kavsir_bboxes\.json"):
        polyp_box_cases(tmp_path, "file")
    with pytest.raises(DataError, match="source of boxes 'yolo' is unknown"):
        polyp_box_cases(tmp_path, "yolo")


def test_a_mask_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    _picture(tmp_path / "images" / "a.png")
    _picture(tmp_path / "masks" / "a.png", (40, 60))
    with pytest.raises(DataError, match=r"masks/a\.png has 40 x 60 pixels but .*images/a\.png has 60 x 40"):
        polyp_box_cases(tmp_path)


def test_cvc_boxes_keep_their_sequences(tmp_path: Path) -> None:
    for number in (1, 26):
        _picture(tmp_path / "Original" / f"{number}.tif")
        _picture(tmp_path / "Ground Truth" / f"{number}.tif", SIZE, np.s_[1:9, 2:7])
    assert [case["group"] for case in polyp_box_cases(tmp_path)] == ["sequence-01", "sequence-02"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=9, max_size=9), st.integers(1, 6))
def test_boxes_agree_with_skimage_and_torchvision(rows: list[list[bool]], least: int) -> None:
    from skimage.measure import label

    mask = np.array(rows)
    boxes, dropped = boxes_of_mask(mask, least / mask.size)
    regions = regionprops(label(mask, connectivity=2))
    kept = [region for region in regions if region.area >= least]
    expected = [[region.bbox[1], region.bbox[0], region.bbox[3], region.bbox[2]] for region in kept]
    assert sorted(boxes) == sorted(expected) and dropped == len(regions) - len(kept)
    if boxes and least == 1:
        whole = masks_to_boxes(torch.from_numpy(mask)[None])[0].tolist()  # its far edges are the last pixels
        edges = np.array(boxes)
        assert whole == [edges[:, 0].min(), edges[:, 1].min(), edges[:, 2].max() - 1, edges[:, 3].max() - 1]
