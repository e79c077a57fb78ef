from __future__ import annotations

import csv
from pathlib import Path

import pytest

from monai_ssl_transfer.demo.ct import CTDemo
from monai_ssl_transfer.demo.endoscopy import EndoscopyDemo
from monai_ssl_transfer.demo.plan import CTPlan, EndoscopyPlan
from monai_ssl_transfer.errors import DataError


def test_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no demo wrote"):
        CTDemo(tmp_path).clear()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_too_few_cases_leave_no_test_set() -> None:
    assert CTPlan().divide([str(number) for number in range(6)])["test"] == ["4", "5"]
    with pytest.raises(DataError, match="--cases 10"):
        CTPlan().divide(["0", "1", "2", "3"])


@pytest.mark.slow
def test_small_demo_from_nothing_to_a_page(tmp_path: Path) -> None:
    plan = CTPlan(cases=12, size=48, seeds=(0, 1), shown=1)
    plan.pretraining.update(epochs=1, batch_size=16, image_size=32)
    plan.transfer.update(epochs=1, val_interval=1, slices_per_epoch=8, pixel_spacing=8.0, image_size=64)
    page = CTDemo(tmp_path / "demo", plan).run()
    assert page.read_text().count("<img") == 2
    rows = list(csv.reader((tmp_path / "demo" / "results.csv").open()))
    assert [row[:2] for row in rows[1:]] == [
        ["scratch", "liver"],
        ["pretrained", "liver"],
        ["scratch", "tumour"],
        ["pretrained", "tumour"],
    ]
    assert all(0 <= float(cell) <= 1 for row in rows[1:] for cell in row[2:5])


@pytest.mark.slow
def test_small_endoscopy_demo_from_nothing_to_a_page(tmp_path: Path) -> None:
    plan = EndoscopyPlan(size=64, seeds=(0, 1), shown=1, videos=4, frames=4, labelled=15, landmarks=0.001)
    plan.pretraining.update(epochs=1, batch_size=8, image_size=32)
    plan.transfer.update(epochs=1, val_interval=1, image_size=64, label_fraction=1.0)
    page = EndoscopyDemo(tmp_path / "demo", plan).run()
    assert page.read_text().count("<img") == 2
    rows = list(csv.reader((tmp_path / "demo" / "results.csv").open()))
    assert [row[:2] for row in rows[1:]] == [["scratch", "polyp"], ["pretrained", "polyp"]]
    assert all(0 <= float(cell) <= 1 for row in rows[1:] for cell in row[2:5])
