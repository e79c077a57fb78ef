from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import LoadImage
from PIL import Image

from monai_ssl_transfer.data.phantoms.volume_layouts import save_volume
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.segmentation_report import CaseSegmentationMetric, SegmentationReport
from monai_ssl_transfer.evaluation.volume_overlays import (
    CLASS_COLOURS,
    VolumeOverlayPage,
    shown_slice,
    slice_jpeg,
)

CLASSES = {"organ": (1, 2), "tumour": (2,)}
WINDOW = (-160.0, 240.0)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(pixels.astype(int) - colour).max(axis=-1) < 60


def opened(jpeg: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(jpeg)))


def volume(array: np.ndarray) -> MetaTensor:
    """(R, C, Z) in the orientation of the bundles."""
    affine = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    return MetaTensor(torch.as_tensor(array)[None], affine=torch.as_tensor(affine))


def test_the_patients_right_is_left_and_anterior_is_up_in_every_file(tmp_path: Path) -> None:
    """A bright mark at the right and anterior, the truth around it, the prediction at the left and posterior."""
    image = np.full((40, 60, 6), -160, np.int16)  # rows to posterior, columns to the left, slices upwards
    truth, prediction = np.zeros((2, *image.shape), np.uint8)
    image[6:10, 8:14] = 240
    truth[4:12, 5:17, 4], truth[4:6, 5:7, 1] = 1, 1
    prediction[28:36, 40:55, 4] = 1
    found = []
    for axes in ("RAS", "LPS", "RPI"):
        read = []
        for name, array in (("image", image), ("truth", truth), ("prediction", prediction)):
            save_volume(tmp_path / axes / f"{name}.nii.gz", array, (2.0, 1.0, 5.0), axes)
            read.append(LoadImage(ensure_channel_first=True)(tmp_path / axes / f"{name}.nii.gz"))
        one = shown_slice(*read, CLASSES)
        assert one.place == "slice 5 of 6 from the feet" and one.spacing == (2.0, 1.0)
        assert np.array_equal(one.image, image[..., 4]) and np.array_equal(one.truth, truth[..., 4])
        found.append(slice_jpeg(one, CLASSES, WINDOW))
    assert len(set(found)) == 1
    drawn = opened(found[0])
    height, width = 480, 360  # 80 mm by 60 mm
    edge = (480 - width) // 2  # words below need the full width
    assert drawn.shape[1] == 480 and drawn.shape[0] > height
    picture = drawn[:height, edge : edge + width]
    bright = (picture > 200).all(axis=-1)
    bright[height // 2 - 5 : height // 2 + 25, :25] = False  # the letter R
    rows, columns = np.nonzero(bright)
    assert (rows.mean() / height, columns.mean() / width) == pytest.approx((8 / 40, 11 / 60), abs=0.01)
    lines = near(picture, CLASS_COLOURS[0])
    upper, lower = lines[: height // 2, : width // 2], lines[height // 2 :, width // 2 :]
    assert lines.sum() == upper.sum() + lower.sum()
    assert upper.sum() == pytest.approx(2 * 2 * (96 + 72), rel=0.1), "solid: two pixels wide all around"
    assert 0.4 < lower.sum() / (2 * 2 * (96 + 90)) < 0.7, "dashed: half of the way around"


def test_without_truth_the_slice_is_the_most_wrong_one() -> None:
    image, empty = np.zeros((8, 8, 5), np.float32), np.zeros((8, 8, 5), np.uint8)
    wrong = empty.copy()
    wrong[2:4, 2:4, 1], wrong[1:6, 1:6, 3], wrong[..., 2] = 1, 1, 7  # 7 is none of the classes
    places = [shown_slice(volume(image), volume(empty), volume(one), CLASSES).place for one in (wrong, empty)]
    assert places == ["slice 4 of 5 from the feet", "slice 3 of 5 from the feet"]
    with pytest.raises(DataError, match="carries no affine"):
        shown_slice(torch.zeros((1, 8, 8, 5)), volume(empty), volume(wrong), CLASSES)


def test_what_was_cut_away_is_black_without_a_window() -> None:
    """Zero is the mean of z-scores, but outside of the brain it is nothing."""
    image = np.zeros((30, 30, 1), np.float32)
    image[8:22, 8:22, 0] = np.linspace(-200, 200, 196).reshape(14, 14)
    image[15, 15, 0] = 0
    labels = np.zeros(image.shape, np.uint8)
    drawn = opened(slice_jpeg(shown_slice(volume(image), volume(labels), volume(labels), CLASSES), CLASSES))
    assert drawn[40:200, 40:100].max() < 20 and drawn[330, 200].min() > 200
    assert drawn[248, 248].min() > 90, "a mean value within the brain is grey"


def evaluated(folder: Path, predictions: dict[str, np.ndarray], truth: np.ndarray, **options: Any) -> None:
    """Run the metric and the page over volumes as the evaluator of a bundle does."""
    names = list(predictions)

    def step(engine: Engine, number: int) -> list[dict]:
        engine.state.batch = [{"case": names[number]}]
        image = volume(np.full(truth.shape, 40, np.float32))
        return [{"image": image, "pred": volume(predictions[names[number]]), "label": volume(truth)}]

    engine, report = Engine(step), SegmentationReport(CLASSES, surfaces=False)
    CaseSegmentationMetric(report, folder).attach(engine, "mean_dice")
    VolumeOverlayPage(report, folder, **options).attach(engine)
    engine.run(range(len(names)))


def test_page_shows_best_median_and_worst_with_both_of_two_overlapping_classes(tmp_path: Path) -> None:
    truth = np.zeros((24, 24, 4), np.uint8)
    truth[4:20, 4:20, 2], truth[8:14, 8:14, 2] = 1, 2
    half = truth.copy()
    half[4:10] = 0
    evaluated(tmp_path, {"<half>": half, "bad": truth * 0, "good": truth}, truth, examples=1, pictures=True)
    page = (tmp_path / "overlays.html").read_text()
    places = [
        page.index(one) for one in ("<h2>Best", "<b>good", "<h2>Median", "<b>&lt;half&gt;", "<h2>Worst", "<b>bad")
    ]
    assert places == sorted(places) and "3 volumes" in page
    assert page.count("slice 3 of 4 from the feet<br>organ: Dice") == 3 and "nan" not in page
    assert "tumour: Dice 0.800, IoU 0.667, 0.024 ml predicted of 0.036 ml" in page
    listed = json.loads((tmp_path / "overlays" / "cases.json").read_text())
    assert list(listed) == ["<half>", "bad", "good"]
    kept = [(tmp_path / "overlays" / file).read_bytes() for file in listed.values()]
    sources = re.findall(r"src='[^,]+,([^']+)'", page)
    assert {base64.b64decode(one) for one in sources} == set(kept)
    good = opened(kept[2])[:480]
    organ, tumour = (near(good, colour) for colour in CLASS_COLOURS[:2])
    assert organ[78, 100:380].all() and 40 < organ[81, 100:380].sum() < 240, "solid outside, dashed inside"
    assert tumour[158, 170:270].all() and organ.any(axis=0).sum() > tumour.any(axis=0).sum()
    assert not near(opened(kept[1])[:480], CLASS_COLOURS[0])[81:84, 100:380].any(), "nothing was predicted"
