"""Labels as annotators save them become what the cases of a data set have; everything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_ssl_transfer.data.annotations import AnnotatedBoxesd, AnnotatedCased, annotated_class, with_classes
from monai_ssl_transfer.data.answers import AnswerBoxesd, AnswerMaskd
from monai_ssl_transfer.data.endoscopy.frames import read_mask
from monai_ssl_transfer.errors import DataError

NAMES = ("normal", "Polyp", "ulcer")


def saved(folder: Path, content: Any) -> Path:
    file = folder / "label.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_classes_are_found_whatever_their_case(tmp_path: Path) -> None:
    assert annotated_class(saved(tmp_path, {"label": "polyp"}), NAMES) == 1
    assert annotated_class(saved(tmp_path, {"labels": ["ULCER", "normal"]}), NAMES, several=True) == [1, 0, 1]
    assert annotated_class(saved(tmp_path, {"labels": []}), NAMES, several=True) == [0, 0, 0]
    own = {"image": "a.png", "class": 2, "label": "positive"}
    assert with_classes([own], NAMES) == [own]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [({"label": "cyst"}, "names the class 'cyst'"), ({"labels": ["ulcer", "normal"]}, "does not say"), ("{", "JSON")],
)
def test_a_label_that_names_no_class_is_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as error:
        annotated_class(saved(tmp_path, content), NAMES)
    assert "label.json" in str(error.value)


def test_the_boxes_of_an_answer_come_back_as_they_were(tmp_path: Path) -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 4.0], [3.5, 2.0, 8.0, 9.0]])
    found = {"boxes": boxes, "labels": torch.ones(2, dtype=torch.int64), "scores": torch.tensor([0.9, 0.2])}
    answer = AnswerBoxesd("boxes", 0.5)(found)
    assert answer["box"].tolist() == [[4.5, 1.5, 0, 10, 4, 1]] and answer["label"].tolist() == [0]
    everything = AnswerBoxesd("boxes")(found)["box"].tolist()
    marks = {"markups": [{"center": one[:3], "size": one[3:]} for one in everything]}
    case = AnnotatedBoxesd()({"image": "a.png", "label": str(saved(tmp_path, marks))})
    assert case == {"image": "a.png", "boxes": boxes.tolist(), "class": 1}
    assert AnnotatedBoxesd()({"image": "a.png", "box": everything, "label": [0, 0]})["boxes"] == boxes.tolist()
    with pytest.raises(DataError, match=r"a\.png"):
        AnnotatedBoxesd()({"image": "a.png", "box": [[1, 1, 0, -2, 2, 1]], "label": [0]})


def test_a_case_is_named_after_its_image() -> None:
    case = AnnotatedCased("image", label_is="depth")({"image": "b/a.png", "label": "d.png"})
    assert case == {"image": "b/a.png", "name": "a.png", "group": "a.png", "depth": "d.png"}
    own = {"image": "a.png", "name": "x", "group": "y", "depth": "d.tiff"}
    assert AnnotatedCased("image", label_is="depth")(own) == own


def test_a_mask_of_ones_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    mask = np.zeros((5, 7), np.uint8)
    mask[1:3, 2:6] = 1
    Image.fromarray(mask).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", ones=True), mask > 0)
    with pytest.raises(DataError, match="no binary mask"):
        read_mask(tmp_path / "a.png")
    Image.fromarray(mask * 2).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="no binary mask"):
        read_mask(tmp_path / "b.png", ones=True)


def test_a_mask_is_answered_as_png_unless_another_kind_is_wanted() -> None:
    pred = torch.tensor([[[0, 1, 1], [0, 0, 1]]])
    answer = AnswerMaskd("pred")({"pred": pred})
    assert answer["result_extension"] == ".png" and answer["pred"].dtype == np.uint8
    assert answer["pred"].tolist() == pred[0].T.tolist()
    assert AnswerMaskd("pred")({"pred": pred, "result_extension": ".nrrd"})["result_extension"] == ".nrrd"
