"""A box goes where its mask goes: every transform of boxes against the same transform of a painted rectangle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.endoscopy.box_transforms import (
    BoxesToTensord,
    FitLongestSided,
    RandFlipBoxesd,
    RandQuarterTurnBoxesd,
    RandScaleBoxesd,
    clip_boxes,
    fit_longest_side,
    scale_boxes,
)
from monai_ssl_transfer.errors import DataError


@st.composite
def painted(draw: st.DrawFn) -> dict:
    """A black photograph with one white rectangle, and the rectangle's box."""
    rows, columns = draw(st.integers(12, 60)), draw(st.integers(12, 60))
    x0, y0 = draw(st.integers(0, columns - 6)), draw(st.integers(0, rows - 6))
    x1, y1 = draw(st.integers(x0 + 5, columns)), draw(st.integers(y0 + 5, rows))
    image = torch.zeros((3, rows, columns), dtype=torch.uint8)
    image[:, y0:y1, x0:x1] = 255
    return BoxesToTensord()({"image": image, "boxes": [[float(x0), float(y0), float(x1), float(y1)]], "class": 1})


def box_of(image: torch.Tensor) -> list[float]:
    rows, columns = np.nonzero(image[0].numpy() > 127)
    return [columns.min(), rows.min(), columns.max() + 1.0, rows.max() + 1.0]


@settings(max_examples=100, deadline=None)
@given(painted(), st.sampled_from([0, 1]))
def test_a_flipped_box_is_the_box_of_the_flipped_mask(case: dict, axis: int):
    found = RandFlipBoxesd("image", prob=1, axis=axis)(case)
    assert torch.equal(found["image"], torch.from_numpy(np.flip(case["image"].numpy(), axis + 1).copy()))
    assert found["boxes"].tolist() == [box_of(found["image"])]


@settings(max_examples=100, deadline=None)
@given(painted(), st.integers(0, 1000))
def test_a_turned_box_is_the_box_of_the_turned_mask(case: dict, seed: int):
    transform = RandQuarterTurnBoxesd("image", prob=1).set_random_state(seed)
    found = transform(case)
    assert transform.turns in (1, 2, 3)
    assert torch.equal(
        found["image"], torch.from_numpy(np.rot90(case["image"].numpy(), transform.turns, (1, 2)).copy())
    )
    assert found["boxes"].tolist() == [box_of(found["image"])]


@settings(max_examples=200, deadline=None)
@given(painted(), st.integers(0, 10_000))
def test_a_scaled_box_is_the_box_of_the_scaled_mask(case: dict, seed: int):
    found = RandScaleBoxesd("image", prob=1, scale=(0.6, 2.0), visible_share=0).set_random_state(seed)(case)
    assert found["image"].shape == case["image"].shape
    assume(bool((found["image"] > 127).any()))
    if len(found["boxes"]):  # what is less than a pixel wide may still shine
        assert np.abs(np.array(found["boxes"][0].tolist()) - box_of(found["image"])).max() <= 1
    else:
        x0, y0, x1, y1 = box_of(found["image"])
        assert min(x1 - x0, y1 - y0) <= 1


@settings(max_examples=100, deadline=None)
@given(painted(), st.integers(16, 200))
def test_a_resized_box_is_the_box_of_the_resized_mask(case: dict, size: int):
    found = FitLongestSided("image", size)(case)
    assert max(found["image"].shape[1:]) == size
    assert np.abs(np.array(found["boxes"][0].tolist()) - box_of(found["image"])).max() <= 1
    back = scale_boxes(found["boxes"], found["image"].shape[1:], case["image"].shape[1:])
    assert torch.allclose(back, case["boxes"], atol=1e-3)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.floats(-50, 150), min_size=4, max_size=4), max_size=5), st.floats(0, 1))
def test_cut_boxes_lie_within_the_image_and_slivers_are_dropped(corners: list, share: float):
    values = torch.tensor(corners, dtype=torch.float64).reshape(-1, 2, 2).sort(dim=1).values.reshape(-1, 4)
    cut, kept = clip_boxes(values, (80, 100), share)
    assert cut.shape == values.shape
    for before, after, keep in zip(values.tolist(), cut.tolist(), kept.tolist(), strict=True):
        inside = [max(0, min(v, limit)) for v, limit in zip(before, (100, 80, 100, 80), strict=True)]
        assert after == inside
        width, height = after[2] - after[0], after[3] - after[1]
        whole = (before[2] - before[0]) * (before[3] - before[1])
        assert keep == (width >= 1 and height >= 1 and width * height >= share * whole)


def test_a_box_out_of_the_picture_is_dropped_with_its_label():
    image = torch.zeros((3, 40, 40), dtype=torch.uint8)
    case = {
        "image": image,
        "boxes": torch.tensor([[0.0, 0, 10, 10], [30.0, 30, 40, 40]]),
        "labels": torch.tensor([1, 2]),
    }
    transform = RandScaleBoxesd("image", prob=1, scale=(2.0, 2.0))
    transform.randomize = lambda data=None: None  # type: ignore[method-assign]
    transform._do_transform, transform.factor, transform.place = True, 2.0, (0.0, 0.0)
    found = transform(case)
    assert found["boxes"].tolist() == [[0, 0, 20, 20]]
    assert found["labels"].tolist() == [1]
    transform.place = (0.5, 0.5)  # the middle: neither is in it
    found = transform(case)
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].shape == (0,)


@pytest.mark.parametrize(
    "transform",
    [
        RandFlipBoxesd("image", prob=1),
        RandQuarterTurnBoxesd("image", prob=1),
        RandScaleBoxesd("image", prob=1),
        FitLongestSided("image", 32),
    ],
)
def test_a_photograph_without_a_polyp_passes(transform):
    image = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8)
    case = BoxesToTensord()({"image": image, "boxes": [], "class": 1})
    found = transform(case)
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].dtype == torch.int64
    assert found["image"].dtype == torch.uint8


@pytest.mark.parametrize("kind", [RandFlipBoxesd, RandQuarterTurnBoxesd, RandScaleBoxesd])
def test_seeded_alike_they_draw_alike_and_sometimes_nothing(kind: type):
    image = torch.arange(3 * 20 * 30).reshape(3, 20, 30).to(torch.uint8)
    case = BoxesToTensord()({"image": image, "boxes": [[2.0, 3, 9, 12]], "class": 1})
    runs = []
    for _ in range(2):
        transform = kind("image", prob=0.5).set_random_state(3)
        runs.append([transform(case)["image"] for _ in range(12)])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
    unchanged = [found.shape == image.shape and torch.equal(found, image) for found in runs[0]]
    assert any(unchanged)
    assert not all(unchanged)


def test_shrinking_does_not_alias():
    stripes = torch.zeros((1, 64, 64), dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    shrunk = fit_longest_side(stripes, 16).float()
    assert (shrunk - 127.5).abs().max() < 20


def test_a_falling_range_of_scale_is_refused():
    with pytest.raises(DataError, match="smallest factor"):
        RandScaleBoxesd("image", scale=(1.5, 0.5))
