from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import tiny_run
import torch
from ignite.engine import Events
from torch import Tensor

from monai_ssl_transfer.engines.pretraining import progress
from monai_ssl_transfer.engines.pretraining.collapse import CollapseMonitor, CollapseOptions
from monai_ssl_transfer.engines.pretraining.progress import PretrainingProgress
from monai_ssl_transfer.engines.pretraining.trainer import StepOptions


class _WithMomentum(tiny_run.TinyMethod):
    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        return {**super().forward(views, progress, keys, gradients), "momentum": torch.tensor(0.99)}


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        watched = [CollapseMonitor(tiny_run.TinyMethod(), CollapseOptions(every=1)), PretrainingProgress(seconds=0.0)]
        tiny_run.build(tmp_path, epochs=2, method=_WithMomentum(), handlers=watched).run()
    lines = [line for line in caplog.messages if "step " in line]
    assert len(lines) == 10
    assert lines[0].startswith("epoch 1/2, step 1/5: loss ")
    assert lines[9].startswith("epoch 2/2, step 5/5: loss ")
    assert lines[9].endswith("0:00:00 left")
    for shown in ("learning rate", "images/s", "data wait", "momentum 0.99000", "spread", "rank"):
        assert all(shown in line for line in lines)
    whole = [line for line in caplog.messages if line.startswith(("epoch 1/2: ", "epoch 2/2: "))]
    assert len(whole) == 2 and "kNN" not in caplog.text and "skipped" not in caplog.text


def test_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.0)
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    tiny_run.build(tmp_path, epochs=1, handlers=[PretrainingProgress()]).run()
    assert "epoch 1/1" in terminal.getvalue()
    assert "0:00:00" in terminal.getvalue() and "loss=" in terminal.getvalue()
    assert "5/5" in terminal.getvalue()


def test_records_hold_means_of_the_epoch(tmp_path: Path) -> None:
    losses: list[float] = []

    class Watcher:
        def attach(self, engine: tiny_run.PretrainingTrainer) -> None:
            engine.add_event_handler(
                Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output[0]["loss"]))
            )

    tiny_run.build(tmp_path, epochs=2, handlers=[Watcher()]).run()
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["loss"] == pytest.approx(sum(losses[:5]) / 5)
    assert second["loss"] == pytest.approx(sum(losses[5:]) / 5)
    assert (first["epoch"], first["iteration"], second["iteration"]) == (1, 5, 10)
    assert second["learning_rate"] < first["learning_rate"]
    assert second["images_per_second"] > 0


def test_records_of_epochs_that_run_again_are_dropped(tmp_path: Path) -> None:
    tmp_path.joinpath("metrics.jsonl").write_text('{"epoch": 1, "loss": 9}\n{"epoch": 2, "lo')
    tiny_run.build(tmp_path, epochs=1).run()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1]
    assert records[0]["loss"] != 9


class _NotANumberAt(tiny_run.TinyMethod):
    """No number in these steps, counted from 1."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps, self.made = steps, 0

    def represent(self, views: list[Tensor], progress: float, keys: object = None) -> dict[str, Tensor]:
        self.made += 1
        bad = float("nan") if self.made in self.steps else 1.0
        return super().represent([view * bad for view in views], progress, keys)


def test_a_skipped_step_is_in_no_mean(tmp_path: Path) -> None:
    losses: list[float] = []

    class Watcher:
        def attach(self, engine: tiny_run.PretrainingTrainer) -> None:
            engine.add_event_handler(
                Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output[0]["loss"]))
            )

    # collapse is looked for in every step, the first one too, which leaves no embedding
    handlers = [CollapseMonitor(tiny_run.TinyMethod(), CollapseOptions(every=1)), Watcher()]
    options = StepOptions(on_nonfinite="skip")
    tiny_run.build(tmp_path, epochs=1, method=_NotANumberAt(1, 4), options=options, handlers=handlers).run()
    (record,) = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert record["skipped"] == 2
    assert record["loss"] == pytest.approx((losses[1] + losses[2] + losses[4]) / 3)
