"""Depth maps in (16 bits, the photograph's size) and relative depth out (the photograph's size and orientation)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_ssl_transfer.data.endoscopy.depth_transforms import (
    DEPTH_UNIT_MM,
    LoadDepthd,
    WriteRelativeDepthd,
    read_depth,
    relative_depth,
)
from monai_ssl_transfer.errors import DataError


@pytest.mark.parametrize("suffix", [".tiff", ".png"])
def test_full_range_is_a_hundred_millimetres(tmp_path: Path, suffix: str):
    values = np.array([[0, 1, 32768], [65535, 655, 6554]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"d{suffix}")
    depth = read_depth(tmp_path / f"d{suffix}")
    assert depth.dtype == np.float32
    assert np.allclose(depth * DEPTH_UNIT_MM, values / 65535 * 100, rtol=1e-6)


def test_depth_of_another_size_is_refused_by_name(tmp_path: Path):
    Image.fromarray(np.ones((4, 6), dtype=np.uint16)).save(tmp_path / "0001_depth.tiff")
    case = {"depth": str(tmp_path / "0001_depth.tiff"), "image": torch.zeros(3, 4, 6), "image_path": "1_color.png"}
    assert LoadDepthd()(case)["label"].shape == (1, 4, 6)
    with pytest.raises(DataError, match=r"0001_depth\.tiff has 4 x 6 pixels and 1_color\.png 6 x 4"):
        LoadDepthd()(case | {"image": torch.zeros(3, 6, 4)})


def test_what_is_no_depth_map_is_refused_by_name(tmp_path: Path):
    Image.fromarray(np.ones((4, 6), dtype=np.uint8)).save(tmp_path / "eight_bits.png")
    Image.fromarray(np.ones((4, 6, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(np.ones((40, 60), dtype=np.uint16)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    (tmp_path / "text.tiff").write_text("no picture")
    for name in ("eight_bits.png", "colour.png", "cut.png", "text.tiff", "missing.tiff"):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            read_depth(tmp_path / name)


def test_a_depth_map_that_unpacks_to_gigabytes_is_refused_by_name(tmp_path: Path):
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 60000, 60000, 16, 0, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items())
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataError, match=r"bomb\.png cannot be read as a depth map .*decompression bomb"):
        read_depth(tmp_path / "bomb.png")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 1000), st.floats(-1000, 1000))
def test_relative_depth_keeps_the_order_whatever_the_scale(seed: int, scale: float, shift: float):
    depth = np.random.default_rng(seed).random((5, 7))
    found = relative_depth(scale * depth + shift)
    assert found.dtype == np.uint16
    assert (found.min(), found.max()) == (0, 65535)
    expected = (depth - depth.min()) / (depth.max() - depth.min()) * 65535
    assert np.abs(found - expected).max() <= 0.51


def test_a_constant_prediction_is_written_as_nought_and_nan_is_refused():
    assert not relative_depth(np.full((3, 4), 7.5)).any()
    with pytest.raises(DataError, match="not finite"):
        relative_depth(np.array([[0.0, np.nan]]))


def test_written_depth_lies_on_a_turned_photograph(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((10, 16, 3), dtype=np.uint8)).save(tmp_path / "p.jpg", exif=exif)
    plane = torch.arange(160.0).reshape(1, 16, 10)  # upright: 16 rows, 10 columns
    item = {"pred": plane, "image_path": str(tmp_path / "p.jpg"), "output": str(tmp_path / "out" / "p")}
    WriteRelativeDepthd("pred")(item)
    with Image.open(tmp_path / "out" / "p_depth.png") as image:
        assert image.size == (16, 10)  # as stored
        stored = np.asarray(image)
    assert stored.dtype == np.uint16
    assert np.array_equal(np.rot90(stored, -1), relative_depth(plane[0].numpy()))
