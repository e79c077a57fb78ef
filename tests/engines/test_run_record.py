from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from monai_ssl_transfer.engines.records.git_state import git_state
from monai_ssl_transfer.engines.records.run_record import RunRecord
from monai_ssl_transfer.errors import TrainingError


class CountedStore(tiny_run.TinyStore):
    pixels = "hu"
    series_count = 11


class At:
    """Does something after the steps of these numbers."""

    def __init__(self, steps: list[int], action: Callable[[], object]) -> None:
        self.steps, self.action = steps, action

    def attach(self, engine: tiny_run.PretrainingTrainer) -> None:
        due = Events.ITERATION_COMPLETED(event_filter=lambda _, step: step in self.steps)
        engine.add_event_handler(due, lambda _: self.action())


def interrupt() -> None:
    signal.raise_signal(signal.SIGTERM)


def _starts(folder: Path) -> list[dict[str, Any]]:
    content = json.loads((folder / "run.json").read_text())
    assert content["format"] == 1
    return list(content["starts"])


def _run(folder: Path, *handlers: Any, **changes: Any) -> None:
    store = CountedStore()
    tiny_run.build(folder, store=store, handlers=[RunRecord(folder, store), *handlers], **changes).run()


CONFIG = {
    "imports": ["$import pathlib", "$import test_run_record"],
    "output_dir": "to be overridden",
    "method_name": "tiny",
    "vit": False,
    "base_rate": 0.5,
    "learning_rate": "$0.001 if @vit else @base_rate * 2",
    "device": "$torch.device('cpu')",
    "unused": "$1 / 0",
    "never_made": {"_target_": "builtins.exit"},
    "stop": {"_target_": "test_run_record.At", "steps": [], "action": "$test_run_record.interrupt"},
    "sizes": {"views": [96, 32]},
    "store": {"_target_": "test_run_record.CountedStore"},
    "record": {
        "_target_": "monai_ssl_transfer.engines.records.run_record.RunRecord",
        "folder": "@output_dir",
        "store": "@store",
    },
    "trainer": {
        "_target_": "tiny_run.build",
        "folder": "$pathlib.Path(@output_dir)",
        "epochs": "$int(@learning_rate)",
        "store": "@store",
        "handlers": ["@record", "@stop"],
    },
    "run": ["$@device", "$@trainer.run()"],
}


def _bundle(folder: Path, **overrides: Any) -> None:
    file = folder / "train.json"
    file.write_text(json.dumps(CONFIG))
    (folder / "overlay.json").write_text(json.dumps({"base_rate": 1.0}))
    files = [str(file), str(folder / "overlay.json")]
    workflow = ConfigWorkflow(files, workflow_type=None, logging_file=False, **overrides)
    workflow.initialize()
    workflow.run()


def test_the_folder_tells_what_was_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _bundle(tmp_path, output_dir=str(out), method_name="other")
    config = json.loads((out / "config.json").read_text())
    assert config["learning_rate"] == CONFIG["learning_rate"]  # not computed, so that it can be run again
    assert (config["base_rate"], config["method_name"], config["output_dir"]) == (1.0, "other", str(out))
    (start,) = json.loads((out / "run.json").read_text())["starts"]
    values = start["values"]
    assert values["learning_rate"] == 2.0
    assert (values["base_rate"], values["method_name"], values["vit"]) == (1.0, "other", False)
    assert (values["device"], values["sizes"]) == ("cpu", {"views": [96, 32]})
    assert values["trainer"].endswith(".PretrainingTrainer") and values["store"] == "test_run_record.CountedStore"
    assert not {"unused", "never_made", "run", "imports"} & values.keys()
    assert (start["state"], start["reason"], start["processes"], start["device"]) == ("finished", None, 1, "cpu")
    assert (start["epoch"], start["epochs"], start["iteration"], start["epoch_length"]) == (2, 2, 10, 5)
    assert start["data"] == {"modality": "CT", "slices": 44, "series": 11, "patients": 11, "parts": {"unknown": 44}}
    assert start["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "monai", "lightly", "timm", "pytorch-ignite", "monai_ssl_transfer"} <= start["versions"].keys()
    assert start["started"] <= start["ended"] and start["command"].split()[0] == Path(sys.orig_argv[0]).name

    config["epochs"], config["output_dir"] = 2, str(tmp_path / "again")
    (tmp_path / "again.json").write_text(json.dumps(config))
    again = ConfigWorkflow(str(tmp_path / "again.json"), workflow_type=None, logging_file=False)
    again.initialize()
    again.run()
    assert len((tmp_path / "again" / "metrics.jsonl").read_text().splitlines()) == 2


def test_starts_of_one_run_are_a_list_and_each_names_its_configuration(tmp_path: Path) -> None:
    out = {"output_dir": str(tmp_path / "out"), "stop#steps": [3, 6]}
    for _ in range(2):
        with pytest.raises(SystemExit):
            _bundle(tmp_path, **out)
    _bundle(tmp_path, **out, sizes={"views": []})
    starts = _starts(tmp_path / "out")
    assert [start["state"] for start in starts] == ["stopped", "stopped", "finished"]
    assert starts[0]["reason"] == "signal 15 (SIGTERM)"
    assert [(start["from_iteration"], start["iteration"]) for start in starts] == [(0, 4), (4, 7), (7, 10)]
    assert [start["config"] for start in starts] == ["config.json", "config.json", "config_2.json"]
    assert json.loads((tmp_path / "out" / "config_2.json").read_text())["sizes"] == {"views": []}
    before = (tmp_path / "out" / "run.json").read_bytes()
    _bundle(tmp_path, **out)  # finished: nothing is run
    assert (tmp_path / "out" / "run.json").read_bytes() == before


def test_a_run_that_breaks_off_says_with_which_sentence(tmp_path: Path) -> None:
    def bad_luck() -> None:
        raise RuntimeError("wrapped") from TrainingError("scan 7 is damaged: ingest it again.")

    def unknown() -> None:
        raise KeyError("oops")

    with pytest.raises(RuntimeError):
        _run(tmp_path, At([7], bad_luck))
    with pytest.raises(KeyError):
        _run(tmp_path, At([9], unknown))
    first, second = _starts(tmp_path)
    assert (first["state"], first["reason"]) == ("broken off", "scan 7 is damaged: ingest it again.")
    assert (second["state"], second["reason"]) == ("broken off", "KeyError: 'oops'")
    assert second["from_iteration"] == first["iteration"] == 7  # the step itself was whole
    assert first["config"] is None and first["method"] == "TinyMethod"  # started from plain Python


def test_a_refused_start_leaves_no_trace(tmp_path: Path) -> None:
    _run(tmp_path, epochs=1)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(TrainingError, match="other settings"):
        _run(tmp_path, epochs=1, seed=4)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_killed_start_is_called_killed_by_the_next(tmp_path: Path) -> None:
    said = tmp_path / "seen"
    with pytest.raises(KeyboardInterrupt):  # nothing catches it, as nothing catches SIGKILL
        _run(tmp_path, At([6], lambda: said.write_bytes((tmp_path / "run.json").read_bytes())), At([7], _killed))
    while_running = json.loads(said.read_text())["starts"][-1]
    assert (while_running["state"], while_running["epoch"], while_running["iteration"]) == ("running", 1, 5)
    _run(tmp_path)
    first, second = _starts(tmp_path)
    assert (first["state"], second["state"]) == ("killed", "finished")
    assert first["ended"] == first["updated"]


def _killed() -> None:
    raise KeyboardInterrupt


def test_a_damaged_record_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run.json").write_text('{"format": 1, "sta')
    _run(tmp_path, epochs=1)
    assert "run.damaged.json" in caplog.text
    assert (tmp_path / "run.damaged.json").read_text() == '{"format": 1, "sta'
    assert len(_starts(tmp_path)) == 1


def test_a_full_disk_is_one_sentence(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("4k")
    disk.joinpath("filler").write_bytes(b"x" * 4096)
    with pytest.raises(TrainingError, match=r"record of the run could not be written .*No space left.*--output_dir"):
        _run(disk, epochs=1)


def test_git_state_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_state() is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert git_state() is None  # no commit yet
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "b").write_text("untracked")
    assert git_state() == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state() == {"commit": commit, "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert git_state() is None
