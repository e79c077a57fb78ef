from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.ct.slice_transforms import AIR, SliceSpacingd, pad_slices, resample_slices, working_size
from monai_ssl_transfer.errors import DataError


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.floats(0.2, 5), st.floats(0.2, 5), st.floats(0.5, 6))
def test_working_size_keeps_the_extent(rows: int, columns: int, row: float, column: float, wanted: float):
    size = working_size((rows, columns), (row, column), (wanted, wanted))
    for n, old, new in zip((rows, columns), (row, column), size, strict=True):
        assert abs(n * old - new * wanted) <= max(0.5 * wanted, wanted - n * old) + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 16, 32]))
def test_padding_is_air_around_the_slice(rows: int, columns: int, multiple: int):
    image = torch.rand(1, 1, rows, columns)
    padded, (top, left) = pad_slices(image, multiple)
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert padded.shape[-2] - rows < multiple
    assert torch.equal(padded[..., top : top + rows, left : left + columns], image)
    assert int((padded == AIR).sum()) == padded.numel() - rows * columns


def test_image_and_label_stay_together_and_spacing_is_updated():
    image = torch.full((1, 60, 80), -3024, dtype=torch.int16)
    label = torch.zeros(1, 60, 80, dtype=torch.uint8)
    image[:, 20:40, 8:48], label[:, 20:40, 8:48] = 100, 2
    out = SliceSpacingd(["image", "label"], 2.0, ["bilinear", "nearest"])(
        {"image": image, "label": label, "spacing": (1.0, 0.5)}
    )
    assert out["image"].shape == out["label"].shape == (1, 30, 20)
    assert out["label"].dtype == torch.uint8
    assert float(out["image"].min()) == pytest.approx(AIR, abs=1e-3)
    assert torch.equal(out["label"] == 2, out["image"] > -462)
    assert out["spacing"].tolist() == [2.0, 2.0]


def test_shrinking_averages_instead_of_picking():
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::4] = 1.0
    small = resample_slices(stripes, (16, 16))[..., 2:-2]
    assert float((small - 0.25).abs().max()) < 0.15


def test_no_spacing_is_refused():
    with pytest.raises(DataError, match="pixel spacing"):
        SliceSpacingd("image", 1.0)({"image": torch.zeros(1, 4, 4), "spacing": (0.0, 1.0)})
