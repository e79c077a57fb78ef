"""The tidy table: round trips, and refusals of what must never be averaged away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.results import Cell, Results, missing_seeds, read_results, write_results


def row(seed: int, value: float, **other: Any) -> dict[str, Any]:
    plain = {"study": "E1", "task": "LiTS", "initialisation": "scratch", "protocol": "fine-tuning", "fraction": 0.1}
    return {**plain, "seed": seed, "case": "", "group": "", "metric": "Dice", "value": value, **other}


CELL = Cell("E1", "LiTS", "scratch", "fine-tuning", 0.1)


@pytest.mark.parametrize("name", ["results.parquet", "results.csv"])
def test_the_table_comes_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    rows = [row(0, 0.1 + 0.2), row(7, -1e-300, case='a, "b"', metric="HD95"), row(1, 0.5, task="Däten", group="p")]
    write_results(Results.of_rows(rows), tmp_path / name)
    assert read_results(tmp_path / name).table.to_pylist() == rows


def test_columns_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("task,initialisation,seed,metric,value\nLiTS,scratch,3,Dice,1\n")
    results = read_results(tmp_path / "r.csv")
    assert results.per_seed(Cell("", "LiTS", "scratch", "", 1.0), "Dice") == {3: 1.0}


def test_values_of_cases_become_the_mean_of_a_seed_and_the_mean_over_seeds() -> None:
    values = {0: {"a": 0.2, "b": 0.8, "c": 0.5}, 1: {"a": 0.4, "b": 0.6, "c": 0.5}}
    groups = {"a": "p1", "b": "p1", "c": ""}
    rows = [row(s, v, case=c, group=groups[c]) for s, found in values.items() for c, v in found.items()]
    results = Results.of_rows(rows)
    assert results.per_seed(CELL, "Dice") == pytest.approx({0: 0.5, 1: 0.5})
    cases = results.per_case(CELL, "Dice")
    assert cases is not None
    assert cases.values == pytest.approx({"a": 0.3, "b": 0.7, "c": 0.5})
    assert cases.groups == {"a": "p1", "b": "p1", "c": "c"}
    assert Results.of_rows([row(0, 1.0)]).per_case(CELL, "Dice") is None


def test_missing_seeds_are_listed() -> None:
    results = Results.of_rows([row(0, 1.0), row(2, 1.0)])
    assert missing_seeds(results, CELL, "Dice", range(4)) == [1, 3]
    assert missing_seeds(results, CELL, "IoU", range(2)) == [0, 1]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row(0, 0.5), row(0, 0.6)], "has 2 rows for .*task LiTS.*seed 0"),
        ([row(0, 0.5, case="a"), row(0, 0.5, case="a")], "has 2 rows for .*case a"),
        ([row(0, float("nan"))], "has the value nan for .*leave out the runs that failed"),
        ([row(0, 0.5), row(0, 0.6, case="a")], "rows with and without a case"),
        ([row(0, 0.5, case="a", group="p"), row(1, 0.6, case="a", group="q")], "puts the case a of LiTS into 2"),
        ([row(0, 0.5, fraction=10.0)], "has the fraction 10 "),
        ([], "has no rows"),
    ],
)
def test_what_would_be_averaged_away_is_refused(rows: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Results.of_rows(rows, "r.csv")


def test_damaged_and_foreign_files_end_in_one_sentence(tmp_path: Path) -> None:
    write_results(Results.of_rows([row(0, 0.5)]), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "picture.csv")
    text = "task,initialisation,seed,metric,value\nLiTS,scratch,first,Dice,1\n"
    (tmp_path / "words.csv").write_text(text)
    (tmp_path / "empty_value.csv").write_text(text.replace("first", "1").replace(",1\n", ",\n"))
    reasons = {
        "cut.parquet": "cannot be read as a table of results",
        "foreign.parquet": "has no column task, initialisation, seed, metric, value",
        "picture.csv": "results",
        "words.csv": "cannot be read as a table of results",
        "empty_value.csv": "cannot be read as a table|rows without a value",
        "absent.parquet": "cannot be read as a table of results",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason) as caught:
            read_results(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
