"""RGB frames in the slice store, against Pillow."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_ssl_transfer.data.store import SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_rgb import compressed, decode_frame, encode_frame, keeps_its_bytes, pixels_alone
from monai_ssl_transfer.data.store_writer import SliceStoreWriter, encode_slice
from monai_ssl_transfer.errors import DataError


def smooth(seed: int, shape: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Reddish picture with a colour gradient and an off-centre bright spot, not symmetric in anything."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    spot = np.exp(-(((rows - shape[0] / 3) / 6) ** 2 + ((columns - shape[1] / 4) / 9) ** 2))
    planes = [150 + 90 * spot + 0.3 * columns, 60 + rows + 80 * spot, 40 + 0.5 * columns + rng.integers(0, 40)]
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def saved(frame: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", **options)
    return stream.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def entry(number: int, kind: str = "frames") -> SeriesEntry:
    return SeriesEntry(f"{number:032x}", "0" * 32, kind, 0.0, False, (0.0,) * 16)


@pytest.fixture
def frames(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    pictures = [smooth(0), smooth(1, (33, 21)), smooth(2, (8, 9))]
    with SliceStoreWriter(tmp_path / "store", pixels="rgb") as writer:
        encoded = [encode_frame(one, position=i, label=i - 1, source=(1 << 63) + i) for i, one in enumerate(pictures)]
        writer.append(entry(1), encoded)
    return tmp_path / "store", pictures


def test_frames_come_back_upright_in_rgb(frames: tuple[Path, list[np.ndarray]]) -> None:
    store = SliceStore(frames[0])
    assert store.pixels == "rgb" and store.verify() == []
    for i, frame in enumerate(frames[1]):
        read = store.read(i)
        assert read.shape == frame.shape and read.dtype == np.uint8 and read.flags.writeable
        np.testing.assert_array_equal(read, pillow(compressed(frame)))
        assert np.abs(read.astype(int) - frame).mean() < 2  # a swap of channels or axes would be far off
        assert store.read_mask(i) is None
    assert store.index["label"].tolist() == [-1, 0, 1]
    assert store.index["source"].tolist() == [(1 << 63) + i for i in range(3)]


def test_frames_are_jpeg_95_with_full_colour() -> None:
    data = compressed(smooth(0))
    image = Image.open(io.BytesIO(data))
    reference = Image.open(io.BytesIO(saved(smooth(0), quality=95, subsampling=0)))
    assert image.quantization == reference.quantization  # type: ignore[attr-defined]
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_stores_of_hu_and_rgb_do_not_mix(frames: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    hu = encode_slice(np.zeros((4, 4), np.int16), position=0, spacing=(1, 1))
    with pytest.raises(DataError, match="holds rgb pixels, not hu"):
        SliceStoreWriter(frames[0])
    with SliceStoreWriter(frames[0], pixels="rgb") as writer:
        with pytest.raises(DataError, match="other pixels than rgb"):
            writer.append(entry(2), [hu])
        writer.append(entry(2), [encode_frame(smooth(5))])
    assert len(SliceStore(frames[0])) == 4
    with pytest.raises(DataError, match="pixels 'grey'"):
        SliceStoreWriter(tmp_path / "other", pixels="grey")
    with SliceStoreWriter(tmp_path / "ct") as writer:
        writer.append(entry(1), [hu])
        with pytest.raises(DataError, match="other pixels than hu"):
            writer.append(entry(2), [encode_frame(smooth(5))])
    header = json.loads((tmp_path / "ct" / "store.json").read_text())
    header.pop("pixels")  # as all stores were written before there were frames
    (tmp_path / "ct" / "store.json").write_text(json.dumps(header))
    assert SliceStore(tmp_path / "ct").pixels == "hu"


def test_version_keeps_older_programs_out(frames: tuple[Path, list[np.ndarray]]) -> None:
    header = json.loads((frames[0] / "store.json").read_text())
    assert (header["version"], header["pixels"]) == (2, "rgb")
    (frames[0] / "store.json").write_text(json.dumps({**header, "version": 1}))
    with pytest.raises(DataError, match="slice store format 1"):
        SliceStore(frames[0])


def test_damaged_frame_names_shard_and_number(frames: tuple[Path, list[np.ndarray]]) -> None:
    shard = frames[0] / "shard-00000.bin"
    raw = bytearray(shard.read_bytes())
    raw[int(SliceStore(frames[0]).index[1]["offset"]) + 200] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(DataError, match=r"shard-00000.bin: slice 1 is damaged"):
        SliceStore(frames[0]).read(1)
    assert len(SliceStore(frames[0]).verify()) == 1


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_wrong_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="must be"):
        encode_frame(array)


SECRET = b"Wintergreen^Ottilie"


def telling(options: dict[str, Any]) -> bytes:
    """A JPEG file with a name in every place that may hold one."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    data = saved(smooth(3), exif=exif, comment=SECRET, icc_profile=b"profile of " + SECRET, **options)
    return data + b"behind the end " + SECRET


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality": 60, "subsampling": "4:2:0"},
        {"progressive": True},
        {"restart_marker_blocks": 2},
        {"optimize": True, "quality": 100},
        {"keep_rgb": True},
    ],
)
def test_a_file_keeps_its_pixels_and_loses_its_texts(options: dict[str, Any]) -> None:
    data = telling(options)
    clean = pixels_alone(data)
    assert data.count(SECRET) == 4 and SECRET not in clean
    np.testing.assert_array_equal(pillow(clean), pillow(data))
    assert keeps_its_bytes(data, pillow(data))
    encoded = encode_frame(pillow(data), jpeg=data)
    np.testing.assert_array_equal(decode_frame(encoded.image, encoded.rows, encoded.columns), pillow(data))
    assert len(encoded.image) % 8 == 0


def test_files_that_must_be_coded_anew() -> None:
    frame = smooth(0)
    grey = frame[..., 0]
    assert keeps_its_bytes(saved(grey), np.stack([grey] * 3, axis=-1))
    assert not keeps_its_bytes(saved(frame), frame[1:])  # cropped or resized
    turned = Image.Exif()
    turned[0x0112] = 6
    assert not keeps_its_bytes(saved(frame, exif=turned), np.rot90(frame, -1))
    square = smooth(0, (40, 40))  # turning does not change the size
    assert not keeps_its_bytes(saved(square, exif=turned), square)
    cmyk = io.BytesIO()
    Image.fromarray(frame).convert("CMYK").save(cmyk, "JPEG")
    assert not keeps_its_bytes(cmyk.getvalue(), frame)
    png = io.BytesIO()
    Image.fromarray(frame).save(png, "PNG")
    assert not keeps_its_bytes(png.getvalue(), frame)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(2, 10_000))
def test_a_file_cut_anywhere_is_refused(cut: int) -> None:
    data = pixels_alone(saved(smooth(4), progressive=True))
    with pytest.raises(DataError, match="cannot be stored"):
        pixels_alone(data[: min(cut, len(data) - 1)])
