from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image, ImageOps

from monai_ssl_transfer.data.endoscopy.frame_output import WriteMaskd, WriteProbabilityd, with_output_paths
from monai_ssl_transfer.data.endoscopy.photographs import photographs
from monai_ssl_transfer.errors import DataError


def save_png16(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)


def save_exif(path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)


def save_rgba(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(path)


KINDS: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "jpeg": ("jpg", lambda path, pixels: Image.fromarray(pixels).save(path)),
    "grey16": ("png", save_png16),
    "palette": ("png", lambda path, pixels: Image.fromarray(pixels).quantize(16).save(path)),
    "cmyk": ("jpg", lambda path, pixels: Image.fromarray(pixels).convert("CMYK").save(path)),
    "rgba": ("png", save_rgba),
    "exif": ("jpg", save_exif),
    "tiff": ("tif", lambda path, pixels: Image.fromarray(pixels).save(path)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mask_of_every_kind_of_photograph_lies_on_it(kind: str, tmp_path: Path):
    suffix, save = KINDS[kind]
    folder = tmp_path / "photographs" / "patient 1"
    folder.mkdir(parents=True)
    source = folder / f"frame.{suffix}"
    save(source, np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8))
    (case,) = with_output_paths(photographs(tmp_path / "photographs"), tmp_path / "masks")
    with Image.open(source) as photograph:
        stored, upright = photograph.size, ImageOps.exif_transpose(photograph).size
    mask = np.zeros(upright[::-1], np.int64)
    mask[2:5, 1:9] = 1
    item = {**case, "image_path": case["image"], "pred": MetaTensor(torch.from_numpy(mask)[None])}
    WriteMaskd("pred")(item)
    written = tmp_path / "masks" / "patient 1" / "frame_mask.png"
    with Image.open(written) as found:
        assert found.size == stored  # for programs that ignore the orientation
        assert found.mode == "L"
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(found)) / 255, mask)
    read = cv2.imread(str(written), cv2.IMREAD_GRAYSCALE)  # a program that honours it
    assert set(np.unique(read)) == {0, 255}
    assert np.array_equal(read > 0, mask)


def test_labels_of_several_classes_and_probabilities(tmp_path: Path):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png")
    (case,) = with_output_paths(photographs(tmp_path / "a.png"), tmp_path / "out")
    labels = torch.arange(24).reshape(1, 4, 6) % 3
    item = {**case, "image_path": case["image"], "pred": labels}
    WriteMaskd("pred", classes=3)(item)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a_mask.png")), labels[0].numpy())
    probability = torch.linspace(0, 1, 24).reshape(1, 4, 6)
    WriteProbabilityd("pred")(item | {"pred": torch.cat([1 - probability, probability])})
    found = np.asarray(Image.open(tmp_path / "out" / "a_probability.png")).astype(float) / 65535
    assert np.abs(found - probability[0].numpy()).max() < 1e-5


def test_outputs_keep_sub_folders_and_never_share_a_name(tmp_path: Path):
    for name in ("one/a.png", "two/a.png", "two/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / name)
    outputs = [Path(case["output"]) for case in with_output_paths(photographs(tmp_path), tmp_path / "out")]
    assert len(set(outputs)) == 3
    assert tmp_path / "out" / "one" / "a" in outputs


def test_no_photograph_is_ever_replaced(tmp_path: Path):
    for name in ("a.jpg", "a_mask.png"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"a\.jpg would replace .*a_mask\.png.*another output_dir"):
        with_output_paths(photographs(tmp_path), tmp_path)
    assert len(with_output_paths(photographs(tmp_path), tmp_path / "masks")) == 2


def test_outputs_of_an_earlier_run_are_not_predicted_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """An output_dir below the photographs: the next run would find its masks among them."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / name)
    for case in with_output_paths(photographs(folder), folder / "found"):
        WriteMaskd("pred")({**case, "image_path": case["image"], "pred": torch.zeros(1, 4, 6)})
    with pytest.raises(DataError, match=r"a\.jpg would replace .*found/a_mask\.png"):
        with_output_paths(photographs(folder), folder / "found")
    for name in ("a", "b"):  # predicted on and put away
        (folder / f"{name}.jpg").rename(folder / f"done {name}.jpg")
    with pytest.raises(DataError, match=r"found/a_mask\.png lies in the output_dir .* earlier run"):
        with_output_paths(photographs(folder), folder / "found")
    assert not caplog.text
    assert len(with_output_paths(photographs(folder), tmp_path / "elsewhere")) == 4
    assert "2 photographs end in one of _mask.png, _probability.png" in caplog.text


def test_a_mask_of_another_size_is_refused(tmp_path: Path):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png")
    (case,) = with_output_paths(photographs(tmp_path / "a.png"), tmp_path / "out")
    with pytest.raises(DataError, match=r"a\.png"):
        WriteMaskd("pred")({**case, "image_path": case["image"], "pred": torch.zeros(1, 6, 4)})
