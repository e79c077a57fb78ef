"""Photographs and masks in every mode and orientation, against Pillow's and OpenCV's own readings."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from monai_ssl_transfer.data.endoscopy.frames import frame_size, read_frame, read_mask, write_grey16, write_mask
from monai_ssl_transfer.errors import DataError

ORIENTATIONS = range(1, 9)
COLOUR = (200, 90, 40)


def picture(rows: int = 37, columns: int = 52) -> np.ndarray:
    """Smooth colours with a bright corner, so that no turn of it equals another."""
    y, x = np.mgrid[:rows, :columns]
    frame = np.stack([90 + x, 40 + 2 * y, 60 + x + y], axis=2).astype(np.uint8)
    frame[:9, :16] = (250, 240, 30)
    return frame


def tagged(path: Path, orientation: int, pixels: np.ndarray, **options: Any) -> Path:
    """Save pixels as they are, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photograph_is_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tagged(tmp_path / f"photograph.{suffix}", orientation, picture())
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    frame = read_frame(path)
    assert np.array_equal(frame, expected)
    assert (frame.dtype, frame.shape) == (np.uint8, (52, 37, 3) if orientation > 4 else (37, 52, 3))
    assert frame.flags.writeable
    assert frame.flags.c_contiguous
    assert frame_size(path) == frame.shape[:2]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_mask_lies_on_its_photograph_in_every_program(tmp_path: Path, orientation: int, suffix: str) -> None:
    photograph = tagged(tmp_path / f"photograph.{suffix}", orientation, picture())
    mask = read_frame(photograph)[..., 2] < 60
    assert 0 < mask.mean() < 1
    write_mask(tmp_path / "mask.png", mask, photograph)

    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)
    with Image.open(photograph) as image, Image.open(tmp_path / "mask.png") as drawn:
        assert drawn.mode == "L"
        # for programs that ignore the tag
        assert drawn.size == image.size
        # for programs that honour it
        upright, turned = ImageOps.exif_transpose(image), ImageOps.exif_transpose(drawn)
        assert turned.size == upright.size
        assert np.array_equal(np.asarray(turned), mask * np.uint8(255))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_opencv_sees_the_mask_on_the_photograph(tmp_path: Path, orientation: int) -> None:
    photograph = tagged(tmp_path / "photograph.jpg", orientation, picture())
    mask = read_frame(photograph)[..., 2] < 60
    write_mask(tmp_path / "mask.png", mask, photograph)
    assert cv2.imread(str(photograph)).shape[:2] == mask.shape
    assert np.array_equal(cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_GRAYSCALE) > 0, mask)
    ignoring = cv2.IMREAD_IGNORE_ORIENTATION
    stored = [cv2.imread(str(tmp_path / name), cv2.IMREAD_COLOR | ignoring) for name in ("photograph.jpg", "mask.png")]
    assert stored[0].shape == stored[1].shape


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_depth_map_lies_on_its_photograph(tmp_path: Path, orientation: int) -> None:
    photograph = tagged(tmp_path / "photograph.jpg", orientation, picture())
    rows, columns = frame_size(photograph)
    depth = (np.arange(rows * columns).reshape(rows, columns) * 30).astype(np.uint16)
    write_grey16(tmp_path / "depth.png", depth, photograph)
    with Image.open(tmp_path / "depth.png") as image:
        assert image.size == Image.open(photograph).size
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), depth)


def test_a_label_map_keeps_its_numbers(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "photograph.png")
    labels = (picture()[..., 0] % 5).astype(np.uint8)
    write_mask(tmp_path / "labels.png", labels, tmp_path / "photograph.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels)


def test_a_mask_of_another_size_is_not_written(tmp_path: Path) -> None:
    photograph = tagged(tmp_path / "photograph.jpg", 6, picture())
    with pytest.raises(DataError, match=r"mask\.png: 37 x 52 .*photograph\.jpg with 52 x 37"):
        write_mask(tmp_path / "mask.png", np.zeros((37, 52), dtype=bool), photograph)
    with pytest.raises(DataError, match="bool or uint8, not float64"):
        write_mask(tmp_path / "mask.png", np.zeros((52, 37)), photograph)
    with pytest.raises(DataError, match="uint16, not int32"):
        write_grey16(tmp_path / "depth.png", np.zeros((52, 37), dtype=np.int32), photograph)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photograph.jpg"]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_leaves_the_picture_as_it_is(tmp_path: Path, orientation: int) -> None:
    path = tagged(tmp_path / "photograph.png", orientation, picture())
    assert np.array_equal(read_frame(path), picture())
    assert frame_size(path) == (37, 52)


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    path = tagged(tmp_path / "photograph.png", 6, picture())
    chunks, data = [], path.read_bytes()
    at = 8
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append(data[at : at + length + 12])
        at += length + 12
    chunks.sort(key=lambda chunk: [b"IHDR", b"IDAT", b"eXIf", b"IEND"].index(chunk[4:8]))
    path.write_bytes(data[:8] + b"".join(chunks))
    assert frame_size(path) == (52, 37)
    assert np.array_equal(read_frame(path), np.rot90(picture(), -1))


def test_frame_size_reads_no_pixels(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "tif"):
        path = tagged(tmp_path / f"photograph.{suffix}", 6, np.zeros((600, 800, 3), dtype=np.uint8))
        if suffix != "tif":
            path.write_bytes(path.read_bytes()[:1000])
        assert frame_size(path) == (800, 600)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_grey_gives_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    grey = picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / f"grey.{suffix}", **({"quality": 100} if suffix == "jpg" else {}))
    frame = read_frame(tmp_path / f"grey.{suffix}")
    assert np.ptp(frame, axis=2).max() == 0
    assert np.abs(frame[..., 0].astype(int) - grey).max() <= (12 if suffix == "jpg" else 0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_gives_its_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    assert np.array_equal(read_frame(tmp_path / f"deep.{suffix}"), np.repeat((values // 256)[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colour_gives_its_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / f"deep.{suffix}"), values[..., ::-1])
    assert np.array_equal(read_frame(tmp_path / f"deep.{suffix}"), values >> 8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_palette_gives_its_colours(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (4, 3), 7)
    image.putpalette([n for i in range(256) for n in (COLOUR if i == 7 else (i, i, i))])
    image.save(tmp_path / f"palette.{suffix}")
    assert np.array_equal(read_frame(tmp_path / f"palette.{suffix}"), np.full((3, 4, 3), COLOUR))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_one_bit_gives_black_and_white(tmp_path: Path, suffix: str) -> None:
    bits = picture()[..., 2] < 60
    Image.fromarray(bits).save(tmp_path / f"bits.{suffix}")
    assert np.array_equal(read_frame(tmp_path / f"bits.{suffix}")[..., 1], bits * np.uint8(255))
    assert np.array_equal(read_mask(tmp_path / f"bits.{suffix}"), bits)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_what_is_transparent_becomes_black(tmp_path: Path, suffix: str) -> None:
    pixels = np.dstack([picture(), np.full(picture().shape[:2], 255, np.uint8)])
    pixels[:20, :, 3] = 0
    pixels[20:30, :, 3] = 128
    Image.fromarray(pixels).save(tmp_path / f"alpha.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    frame = read_frame(tmp_path / f"alpha.{suffix}")
    assert frame[:20].max() == 0
    assert np.abs(frame[20:30] - picture()[20:30] * (128 / 255)).max() <= 1
    assert np.array_equal(frame[30:], picture()[30:])


def test_transparent_grey_and_transparent_palettes(tmp_path: Path) -> None:
    Image.new("LA", (4, 3), (200, 0)).save(tmp_path / "grey.png")
    palette = Image.new("P", (4, 3), 7)
    palette.putpixel((0, 0), 8)
    palette.putpalette([n for _ in range(256) for n in COLOUR])
    palette.save(tmp_path / "palette.png", transparency=8)
    assert read_frame(tmp_path / "grey.png").max() == 0
    frame = read_frame(tmp_path / "palette.png")
    assert tuple(frame[0, 0]) == (0, 0, 0)
    assert tuple(frame[1, 1]) == COLOUR


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg_is_not_inverted(tmp_path: Path, adobe: bool) -> None:
    # Pillow writes what Adobe writes: inverted values and a mark that says so; without the mark they count as they are
    image = Image.fromarray(picture()).convert("CMYK")
    buffer = io.BytesIO()
    (image if adobe else Image.fromarray(255 - np.asarray(image), "CMYK")).save(buffer, "JPEG", quality=98)
    data = buffer.getvalue()
    at = data.index(b"\xff\xee")
    assert data[at + 4 : at + 9] == b"Adobe"
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    (tmp_path / "print.jpg").write_bytes(data if adobe else data[:at] + data[at + 2 + length :])
    frame = read_frame(tmp_path / "print.jpg")
    assert np.abs(frame.astype(int) - picture()).mean() < 4


def test_cmyk_tiff(tmp_path: Path) -> None:
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "print.tif")
    assert np.abs(read_frame(tmp_path / "print.tif").astype(int) - picture()).max() <= 1


def test_jpeg_masks_are_thresholded_at_half_range(tmp_path: Path) -> None:
    """A cast to bool or a comparison with 0 takes the coding's noise for a finding."""
    disc = (np.hypot(*(np.mgrid[:96, :96] - 47.5)) < 25.3).astype(np.uint8) * 255
    for name, pixels in (("grey", disc), ("rgb", np.dstack([disc] * 3))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", quality=75)
        decoded = np.asarray(Image.open(tmp_path / f"{name}.jpg").convert("L"))
        assert (decoded.astype(bool) != (disc > 0)).sum() > 100
        assert np.array_equal(read_mask(tmp_path / f"{name}.jpg"), decoded > 127)
        assert (read_mask(tmp_path / f"{name}.jpg") != (disc > 0)).sum() < 10


def test_masks_stored_as_rgb_palette_alpha_or_16_bit(tmp_path: Path) -> None:
    mask = np.zeros((6, 9), dtype=bool)
    mask[2:4, 3:8] = True
    values = mask * np.uint8(255)
    Image.fromarray(np.dstack([values] * 3)).save(tmp_path / "rgb.png")
    # drawn in one colour, which a grey value (0.11 of blue) would lose
    Image.fromarray(np.dstack([values * 0, values * 0, values])).save(tmp_path / "blue.png")
    # all opaque, so transparency tells nothing; and a finding that is transparent is still drawn
    Image.fromarray(np.dstack([values] * 3 + [np.full_like(values, 255)])).save(tmp_path / "opaque.png")
    Image.fromarray(np.dstack([values] * 3 + [np.full_like(values, 0)])).save(tmp_path / "transparent.png")
    Image.fromarray(mask.astype(np.uint16) * 65535).save(tmp_path / "deep.png")
    palette = Image.fromarray(mask.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.png")
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_mask(path), mask), path.name


def test_a_mask_of_zeros_and_ones_is_refused(tmp_path: Path) -> None:
    """Its largest value is far below half range: thresholded it would look as if it showed nothing."""
    values = np.zeros((6, 9), dtype=np.uint8)
    values[2:4] = 1
    Image.fromarray(values).save(tmp_path / "ones.png")
    with pytest.raises(DataError, match=r"ones\.png .* largest value is 1 of 255"):
        read_mask(tmp_path / "ones.png")
    Image.fromarray(values.astype(np.uint16) * 255).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png .* largest value is 255 of 65535"):
        read_mask(tmp_path / "deep.png")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_masks_are_not_taken_for_empty(tmp_path: Path, suffix: str, channels: int) -> None:
    """Pillow keeps the high byte of 16-bit colour, in which 255 of 65535 is nought."""
    values = np.zeros((6, 9, channels), dtype=np.uint16)
    values[2:4, 3:8, 0] = 255
    values[..., 3:] = 65535
    path = tmp_path / f"deep.{suffix}"
    assert cv2.imwrite(str(path), values)
    with pytest.raises(DataError, match=rf"deep\.{suffix} .* largest value is 255 of 65535"):
        read_mask(path)
    values[2:4, 3:8, 0] = 65535
    assert cv2.imwrite(str(path), values)
    assert np.array_equal(read_mask(path), values[..., 0] > 0)


def test_16_bit_grey_masks_with_transparency_are_not_taken_for_empty(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    for largest in (255, 65535):
        row = b"\0" + struct.pack(">8H", 0, 65535, 0, 65535, largest, 65535, largest, 65535)  # value, opacity
        chunks = {b"IHDR": struct.pack(">IIBBBBB", 4, 2, 16, 4, 0, 0, 0), b"IDAT": zlib.compress(row * 2), b"IEND": b""}
        parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items())
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        if largest == 255:
            with pytest.raises(DataError, match=r"deep\.png .* largest value is 255 of 65535"):
                read_mask(path)
    assert read_mask(path).tolist() == [[False, False, True, True]] * 2


def test_a_mask_of_nothing_is_empty(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 6, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=95)
    Image.new("L", (64, 64)).save(tmp_path / "black.png")
    assert 0 < np.asarray(Image.open(tmp_path / "noise.jpg")).max() <= 16
    assert not read_mask(tmp_path / "noise.jpg").any()
    assert not read_mask(tmp_path / "black.png").any()


@pytest.mark.parametrize("reader", [read_frame, read_mask])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str, share: float, reader: Any) -> None:
    path = tmp_path / f"broken.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=rf"broken\.{suffix}"):
        reader(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_end_was_filled_with_zeros_is_refused(tmp_path: Path, progressive: bool) -> None:
    """As a broken download leaves it: Pillow reads it without a word."""
    path = tagged(tmp_path / "broken.jpg", 1, np.repeat(picture(), 4, axis=0), progressive=progressive)
    data = path.read_bytes()
    read_frame(path)
    path.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))
    with pytest.raises(DataError, match=r"broken\.jpg"):
        read_frame(path)


def test_what_follows_a_jpeg_does_not_matter(tmp_path: Path) -> None:
    path = tagged(tmp_path / "long.jpg", 1, picture())
    frame = read_frame(path)
    path.write_bytes(path.read_bytes() + b"\xff\xda of a film behind it")
    assert np.array_equal(read_frame(path), frame)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_cut_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "TIFF"]))
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, kind)
    whole = buffer.getvalue()
    path = tmp_path_factory.getbasetemp() / "cut.bin"
    path.write_bytes(whole)
    expected = read_frame(path)
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    try:
        frame = read_frame(path)
    except DataError as error:
        assert "cut.bin" in str(error)
    else:
        assert np.array_equal(frame, expected)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_never_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "TIFF", "BMP"]))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, kind, **({} if kind == "BMP" else {"exif": exif}))
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(damaged)
    for reader in (frame_size, read_frame, read_mask):
        try:
            reader(path)
        except DataError as error:
            assert "damaged.bin" in str(error)


def test_what_is_no_photograph_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("Kvasir-SEG")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("notes.jpg", "empty.png", "folder.png", "missing.png"):
        for reader in (read_frame, read_mask, frame_size):
            with pytest.raises(DataError, match=name):
                reader(tmp_path / name)


def test_several_pictures_in_a_file_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(picture()), Image.fromarray(picture()[::-1])]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"pages\.tif holds 2 pictures"):
        read_frame(tmp_path / "pages.tif")


def test_32_bit_pixels_are_refused(tmp_path: Path) -> None:
    for name, kind in (("real.tif", np.float32), ("whole.tif", np.int32)):
        Image.fromarray(np.ones((4, 5), dtype=kind)).save(tmp_path / name)
        with pytest.raises(DataError, match=rf"{name} has pixels of mode"):
            read_frame(tmp_path / name)


def test_a_picture_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items())
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(DataError, match=r"bomb\.png cannot be read .*decompression bomb"):
        read_frame(tmp_path / "bomb.png")
