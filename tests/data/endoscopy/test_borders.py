"""The field of view in generated frames whose border is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.endoscopy.borders import field_of_view


def tissue(rows: int, columns: int) -> np.ndarray:
    """Reddish picture with texture and no dark place."""
    noise = np.random.default_rng(0).integers(-15, 16, (rows, columns, 1))
    return np.clip(np.array([170, 90, 70]) + noise, 0, 255).astype(np.uint8)


def octagon(rows: int, columns: int, cut: int) -> np.ndarray:
    """Whether a pixel is inside: the four corners are cut off."""
    y, x = np.mgrid[:rows, :columns]
    y, x = np.minimum(y, rows - 1 - y), np.minimum(x, columns - 1 - x)
    return x + y >= cut


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4), st.integers(60, 200), st.integers(60, 200))
def test_a_black_border_is_found_to_the_pixel(border: tuple[int, int, int, int], rows: int, columns: int) -> None:
    top, bottom, left, right = border
    frame = np.pad(tissue(rows, columns), ((top, bottom), (left, right), (0, 0)))
    assert field_of_view(frame) == (top, top + rows, left, left + columns)


def test_the_text_margin_of_kvasir_is_removed() -> None:
    """Name, date and time in white, left of an octagon, as HyperKvasir has it; JPEG noise around all."""
    frame = np.zeros((576, 720, 3), np.uint8)
    frame[20:556, 180:700] = tissue(536, 520) * octagon(536, 520, 110)[..., None]
    for row, text in enumerate(("15/03/2012", "10:47:30", "CVP:6", "A5")):
        cv2.putText(frame, text, (12, 70 + 30 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
    frame = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    assert np.abs(np.array(field_of_view(frame)) - (20, 556, 180, 700)).max() <= 1


def test_a_dark_lumen_does_not_cut_the_picture() -> None:
    y, x = np.mgrid[:300, :300]
    frame = tissue(300, 300)
    frame[np.hypot(y - 150, x - 190) < 80] = 6
    frame = np.pad(frame, ((0, 0), (50, 50), (0, 0)))
    assert field_of_view(frame) == (0, 300, 50, 350)


@pytest.mark.parametrize("columns", [300, 1200])
def test_the_view_of_a_round_picture_is_nearly_its_box(columns: int) -> None:
    y, x = np.mgrid[:300, :columns]
    frame = tissue(300, columns) * (np.hypot(y - 150, x - columns / 2) < 120)[..., None]
    # the outermost rows of a disc are short
    expected = (30, 271, columns // 2 - 120, columns // 2 + 121)
    assert np.abs(np.array(field_of_view(frame)) - expected).max() <= 8


def test_a_reflex_in_a_dark_frame_is_no_field_of_view() -> None:
    frame = np.full((300, 400, 3), 5, np.uint8)
    frame[100:120, 200:230] = 255
    assert field_of_view(frame) == (0, 300, 0, 400)


@pytest.mark.parametrize("value", [0, 12, 200])
def test_a_frame_without_border_or_without_picture_is_left_whole(value: int) -> None:
    assert field_of_view(np.full((30, 50, 3), value, np.uint8)) == (0, 30, 0, 50)


def test_what_is_cropped_is_cropped_the_same_again() -> None:
    frame = np.pad(tissue(100, 140) * octagon(100, 140, 30)[..., None], ((7, 9), (40, 3), (0, 0)))
    top, bottom, left, right = field_of_view(frame)
    assert field_of_view(frame[top:bottom, left:right]) == (0, bottom - top, 0, right - left)
