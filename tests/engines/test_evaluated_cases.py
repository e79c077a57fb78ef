"""What an evaluation remembers of its cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from monai_ssl_transfer.engines.records.evaluated_cases import evaluated_cases


def record(run: Path, data: Path, file: str) -> None:
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"dataset_dir": str(data)}))
    (run / file).write_text(json.dumps({"train": ["a", "b"], "validation": ["c"], "test": ["d"]}))


def test_photographs_are_compared_with_the_record_of_the_run(tmp_path: Path):
    record(tmp_path / "run", tmp_path, "frames.json")
    computed = {"run_dir": str(tmp_path / "run"), "cases": {"evaluate": [{"name": "d"}], "train": [{"name": "a"}]}}
    settings = {"evaluate_part": "test", "dataset_dir": str(tmp_path / "run" / "..")}
    held_out = {"part": "test", "cases": 1, "in_training": 0, "in_validation": 0, "same_folder": True}
    assert evaluated_cases(settings, computed) == held_out
    computed["cases"] = {"evaluate": [{"name": name} for name in "abcd"]}
    everything = {"part": "all", "cases": 4, "in_training": 2, "in_validation": 1, "same_folder": False}
    assert evaluated_cases({"evaluate_part": "all", "dataset_dir": "elsewhere"}, computed) == everything


def test_volumes_are_named_or_validate(tmp_path: Path):
    record(tmp_path / "run", tmp_path, "cases.json")
    computed = {"run_dir": str(tmp_path / "run"), "cases": {"validation": [{"case": "c"}], "train": []}}
    found = evaluated_cases({"dataset_dir": str(tmp_path)}, computed)
    assert (found["part"], found["in_validation"]) == ("validation", 1)
    computed["cases"] = {"validation": [{"case": "b"}]}
    found = evaluated_cases({"validation_cases": ["b"]}, computed)
    assert (found["part"], found["in_training"], found["same_folder"]) == ("named", 1, None)
    found = evaluated_cases({"validation_cases": ["b"]}, computed | {"run_dir": str(tmp_path / "none")})
    assert found["in_training"] is None


def test_volumes_of_the_test_part_are_known_by_the_record(tmp_path: Path):
    record(tmp_path / "run", tmp_path, "cases.json")
    computed = {"run_dir": str(tmp_path / "run"), "cases": {"evaluate": [{"case": "d"}], "train": []}}
    for settings in ({}, {"test_cases": ["d"]}, {"validation_cases": ["c"], "evaluate_part": "test"}):
        found = evaluated_cases({"dataset_dir": str(tmp_path), **settings}, computed)
        assert (found["part"], found["in_validation"]) == ("test", 0)
    elsewhere = {"dataset_dir": str(tmp_path / "run"), "test_cases": ["d"]}
    assert evaluated_cases(elsewhere, computed)["part"] == "named"
    assert evaluated_cases({"evaluate_part": "all", "validation_cases": ["c"]}, computed)["part"] == "all"


def test_slices_are_those_of_the_record():
    parts = {"train": np.array([[0, 1]]), "validation": np.array([[4, 1], [5, 2]]), "test": np.array([[7, 1]])}
    for part, validated in (("validation", 2), ("test", 0)):
        found = evaluated_cases({}, {"slices": parts | {"evaluate": parts[part]}})
        assert (found["part"], found["cases"], found["in_validation"]) == (part, len(parts[part]), validated)
        assert found["in_training"] == 0
    other = {name: np.empty((0, 2), int) for name in parts} | {"evaluate": parts["train"]}
    assert evaluated_cases({"evaluate_part": "all"}, {"slices": other})["in_training"] is None
    assert evaluated_cases({}, {}) == {}
