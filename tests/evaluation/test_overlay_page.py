from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from PIL import Image

from monai_ssl_transfer.evaluation.frame_segmentation_report import FrameSegmentationMetric, FrameSegmentationReport
from monai_ssl_transfer.evaluation.overlay_drawing import PREDICTION_COLOUR, TRUTH_COLOUR, overlay_jpeg
from monai_ssl_transfer.evaluation.overlay_page import OverlayPage, choose_examples


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(pixels.astype(int) - colour).max(axis=-1) < 60


@pytest.mark.parametrize("size", [(100, 140), (1000, 1400)])
def test_contours_lie_around_the_masks(size: tuple[int, int]):
    rows, columns = size
    truth = np.zeros(size, np.uint8)
    truth[rows // 4 : rows // 2, columns // 4 : columns // 2] = 1
    image = torch.full((3, rows, columns), 120, dtype=torch.uint8)
    picture = np.array(Image.open(io.BytesIO(overlay_jpeg(image, truth, truth))))
    assert max(picture.shape) == min(480, columns)
    scale = picture.shape[0] / rows
    top, bottom = round(rows // 4 * scale), round(rows // 2 * scale)
    left, right = round(columns // 4 * scale), round(columns // 2 * scale)
    middle = (left + right) // 2
    assert near(picture[top - 1, middle], TRUTH_COLOUR)
    assert near(picture[top + 1, middle], PREDICTION_COLOUR)
    assert near(picture[bottom, middle], TRUTH_COLOUR)
    assert not near(picture[(top + bottom) // 2, middle], PREDICTION_COLOUR)
    empty = np.array(Image.open(io.BytesIO(overlay_jpeg(image, truth * 0, truth * 0))))
    assert not near(empty, TRUTH_COLOUR).any()


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 8))
def test_examples_are_chosen_once_and_in_order(values: list[float], count: int):
    chosen = choose_examples(values, count)
    taken = [index for positions in chosen.values() for index in positions]
    assert len(taken) == len(set(taken)) == min(len(values), 3 * count)
    lowest_best = min((values[i] for i in chosen["best"]), default=1)
    assert all(values[i] <= lowest_best for i in chosen["median"] + chosen["worst"])
    assert all(values[i] >= values[j] for i in chosen["median"] for j in chosen["worst"])
    if chosen["worst"]:
        assert values[chosen["worst"][0]] == min(values)


def test_page_opens_offline_and_names_every_photograph(tmp_path: Path):
    truth = torch.zeros((1, 40, 50), dtype=torch.uint8)
    truth[0, 10:20, 10:20] = 1
    names = ["good", "<b>half</b>", "bad"]
    predictions = [truth, truth.clone(), torch.zeros_like(truth)]
    predictions[1][0, 10:15] = 0

    def step(engine: Engine, case: int) -> list[dict]:
        engine.state.batch = [{"name": names[case]}]
        image = torch.full((3, 40, 50), 90.0)
        return [{"image": image, "pred": predictions[case], "label": truth}]

    engine, report = Engine(step), FrameSegmentationReport()
    FrameSegmentationMetric(report).attach(engine, "mean_dice")
    OverlayPage(report, tmp_path / "eval", examples=1, pictures=True).attach(engine)
    engine.run(range(3))
    page = (tmp_path / "eval" / "overlays.html").read_text()
    assert page.index("<h2>Best") < page.index("<b>good") < page.index("<h2>Median") < page.index("half")
    assert page.index("<h2>Median") < page.index("<h2>Worst") < page.index("<b>bad")
    assert "<b>half</b>" not in page
    assert "Dice 0.667" in page
    sources = re.findall(r"src='([^']+)'", page)
    assert len(sources) == 3
    assert all(Image.open(io.BytesIO(base64.b64decode(one.split(",")[1]))).size == (50, 40) for one in sources)
    assert "http" not in page
    listed = json.loads((tmp_path / "eval" / "overlays" / "cases.json").read_text())
    assert list(listed) == names
    kept = {(tmp_path / "eval" / "overlays" / file).read_bytes() for file in listed.values()}
    assert kept == {base64.b64decode(one.split(",")[1]) for one in sources}
