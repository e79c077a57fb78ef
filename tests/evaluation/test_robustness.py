"""Drops and their intervals against numbers worked out by hand, the files, and what is kept of a grid."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.robustness import CLEAN, JudgedCase, judge_grid
from monai_ssl_transfer.evaluation.robustness_grid import (
    GridOptions,
    parsed_settings,
    read_cases,
    run_grid,
    write_cases,
)
from monai_ssl_transfer.evaluation.robustness_report import markdown, write_report


def cases(values: list[float], strata: str | None = None, groups: int = 0) -> list[JudgedCase]:
    names = strata or "x" * len(values)
    return [
        JudgedCase(f"c{i}", f"g{i % groups if groups else i}", stratum, value, 1.0)
        for i, (value, stratum) in enumerate(zip(values, names, strict=True))
    ]


def test_drop_and_relative_robustness_are_means_over_severities() -> None:
    grid = {
        CLEAN: cases([0.8, 0.6]),
        ("blur", 1): cases([0.8, 0.4]),
        ("blur", 5): cases([0.2, 0.0]),
        ("jpeg", 1): cases([0.8, 0.6]),
    }
    result = judge_grid(grid, "Dice")
    assert result.clean.value == pytest.approx(0.7)
    assert result.means["blur"][0].value == pytest.approx((0.1 + 0.6) / 2)
    assert result.means["blur"][1].value == pytest.approx((0.6 / 0.7 + 0.1 / 0.7) / 2)
    assert result.means["jpeg"][0].value == 0
    assert result.overall[0].value == pytest.approx(0.175)  # each corruption weighs the same, however many severities


def test_an_error_is_turned_round() -> None:
    result = judge_grid({CLEAN: cases([2.0, 4.0]), ("blur", 1): cases([4.0, 8.0])}, "RMSE", higher_is_better=False)
    assert result.cells[0].drop.value == pytest.approx(3)
    assert result.cells[0].relative.value == pytest.approx(0.5)


def test_strata_weigh_the_same_as_in_balanced_accuracy() -> None:
    result = judge_grid({CLEAN: cases([1, 1, 1, 1], "aaab"), ("blur", 1): cases([1, 1, 1, 0], "aaab")}, "accuracy")
    assert result.cells[0].score.value == pytest.approx(0.5)


def test_pairing_takes_away_what_differs_between_cases_only() -> None:
    random = np.random.default_rng(0)
    clean = random.uniform(0, 1, 60)
    result = judge_grid({CLEAN: cases(list(clean)), ("blur", 1): cases(list(clean - 0.1))}, "Dice")
    drop = result.cells[0].drop
    assert (drop.low, drop.high) == pytest.approx((0.1, 0.1))
    score = result.cells[0].score
    assert score.high - score.low == pytest.approx(2 * 1.96 * clean.std() / np.sqrt(60), rel=0.1)


def test_groups_are_drawn_whole() -> None:
    values = list(np.repeat([0.0, 1.0], 50)) * 1
    by_case = judge_grid({CLEAN: cases(values), ("blur", 1): cases(values)}, "Dice").clean
    grouped = [JudgedCase(f"c{i}", f"g{i // 10}", "x", value, 1.0) for i, value in enumerate(values)]
    by_group = judge_grid({CLEAN: grouped, ("blur", 1): grouped}, "Dice").clean
    assert by_group.high - by_group.low > 2.5 * (by_case.high - by_case.low)
    one = [JudgedCase(f"c{i}", "g", "x", 1.0, 1.0) for i in range(3)]
    assert np.isnan(judge_grid({CLEAN: one, ("blur", 1): one}, "Dice").clean.low)


def test_cells_of_other_cases_are_refused() -> None:
    with pytest.raises(DataError, match="other cases"):
        judge_grid({CLEAN: cases([1.0, 1.0]), ("blur", 1): cases([1.0])}, "Dice")
    with pytest.raises(DataError, match="at least one corruption"):
        judge_grid({CLEAN: cases([1.0])}, "Dice")


def test_report_files_agree_and_undefined_numbers_are_empty(tmp_path: Path) -> None:
    result = judge_grid({CLEAN: cases([0.0, 0.0]), ("ring", 1): cases([0.0, 0.0])}, "Dice")
    page = write_report(result, tmp_path, "some <bundle>")
    rows = list(csv.DictReader((tmp_path / "robustness.csv").open()))
    assert [row["corruption"] for row in rows] == ["clean", "ring"]
    assert rows[1]["relative"] == ""
    assert json.loads((tmp_path / "robustness.json").read_text())["cells"][0]["relative"]["value"] is None
    assert "some &lt;bundle&gt;" in page.read_text() and "http" not in page.read_text()
    assert "| ring | 0.000 (0.000 to 0.000) | not defined |" in markdown(result, "x")
    assert "Only 2 groups" in markdown(result, "x")


def test_cases_come_back_as_they_were_written(tmp_path: Path) -> None:
    found = [JudgedCase("a, b", "g\u00e9", "x", 1 / 3, 1.0), JudgedCase("n\udcff", "g", "y", 0.1 + 0.2, 3.0)]
    write_cases(tmp_path / "cases.csv", found)
    assert read_cases(tmp_path / "cases.csv") == found


def test_settings_are_json_else_text() -> None:
    assert parsed_settings(["a=1", "b#c=all", "d=[1, 2]", "e=x=y"]) == {"a": 1, "b#c": "all", "d": [1, 2], "e": "x=y"}
    with pytest.raises(DataError, match="id=value"):
        parsed_settings(["a"])
    with pytest.raises(DataError, match=r"--probe-set as id=value, such as k=\[5\]"):
        parsed_settings(["a"], "--probe-set", "k=[5]")


def test_a_misspelt_setting_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"never read")
    settings = {"image_sze": 96}
    options = GridOptions(
        "endoscopy_polyp_segmentation", tmp_path / "model.pt", (tmp_path,), tmp_path / "grid", settings=settings
    )
    with pytest.raises(DataError, match="no setting 'image_sze': did you mean image_size"):
        run_grid(options)
    assert not (tmp_path / "grid").exists()
