from __future__ import annotations

import json
from pathlib import Path

from ignite.engine import Engine

from monai_ssl_transfer.engines.records.validation_records import ValidationRecords


def test_one_line_per_validation_and_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "validation.jsonl").write_text('{"of an earlier run": 1}\n')
    evaluator = Engine(lambda engine, batch: batch)
    ValidationRecords(tmp_path).attach(evaluator)
    for dice in (0.25, 0.5):
        evaluator.state.metrics = {"mean_dice": dice, "not a number": "text"}
        evaluator.run([0], max_epochs=1)
        evaluator.state.metrics = {}
    lines = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [line["mean_dice"] for line in lines] == [0.25, 0.5]
    assert all(set(line) == {"epoch", "mean_dice"} for line in lines)
