from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.engines.records.run_listing import run_row
from monai_ssl_transfer.engines.records.run_tables import listing
from monai_ssl_transfer.errors import DataError


def _write(folder: Path, epochs: int = 3, age: timedelta = timedelta(0), **changes: Any) -> Path:
    """A run's files as the handlers write them."""
    folder.mkdir(parents=True)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    start = {
        "started": now.isoformat(),
        "state": "running",
        "reason": None,
        "epochs": 100,
        "epoch": epochs,
        "processes": 1,
        "device": "cpu",
        "command": "python -m monai.bundle run --config_file train.json",
        "data": {"modality": "CT", "slices": 12_345_678},
        "values": {"method_name": "simclr", "encoder_name": "resnet50"},
        "updated": (now - age).isoformat(),
    }
    (folder / "run.json").write_text(json.dumps({"format": 1, "starts": [{"state": "killed"}, start | changes]}))
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(1, epochs + 1):
            record = {"epoch": epoch, "loss": 5.0 - epoch / 2, "learning_rate": 0.3, "images_per_second": 123.4}
            record |= {"momentum": 0.996, "wait": 0.05, "time": now.isoformat()}
            record |= {"knn_accuracy": {1: 0.25, 2: 0.75}[epoch]} if epoch in (1, 2) else {}
            file.write(json.dumps(record) + "\n")
    return folder


def _words(line: str) -> str:
    return " ".join(line.split())


def test_a_table_of_runs(tmp_path: Path) -> None:
    _write(tmp_path / "a", age=timedelta(minutes=3))
    _write(
        tmp_path / "deep" / "b",
        0,
        timedelta(minutes=3),
        state="broken off",
        reason="The disk is full; free space.",
        epoch=0,
    )
    _write(tmp_path / "a" / "checkpoints" / "copy")  # inside of a run: not one
    lines = listing([tmp_path]).splitlines()
    assert _words(lines[0]) == "run method encoder images epochs state loss best kNN last images/s when"
    assert _words(lines[1]) == "a simclr resnet50 12.3M 3/100 running 3.5 75.0% 75.0% 123 3 min ago"
    assert _words(lines[2]) == "deep/b simclr resnet50 12.3M 0/100 broken off - - - - 3 min ago"
    assert lines[3:] == ["deep/b: The disk is full; free space."]
    rows = json.loads(listing([tmp_path], as_json=True))
    assert [(row["run"], row["best_knn"], row["loss"]) for row in rows] == [("a", 0.75, 3.5), ("deep/b", None, None)]


def test_the_epochs_of_one_run(tmp_path: Path) -> None:
    run = _write(tmp_path / "a", state="stopped", reason="signal 15 (SIGTERM)")
    lines = listing([run]).splitlines()
    assert "simclr, resnet50, 12,345,678 slices (CT)" in lines[0]
    assert "stopped in epoch 3 of 100: signal 15 (SIGTERM)" in lines
    assert "command: python -m monai.bundle run --config_file train.json" in lines
    head = lines.index("") + 1
    assert _words(lines[head]) == "epoch loss rate momentum kNN images/s wait when"
    assert lines[head + 2].split()[:7] == ["2", "4.0000", "0.3", "0.99600", "75.0%", "123", "5%"]
    assert lines[head + 3].split()[4] == "-"  # not measured in that epoch
    assert len(lines) == head + 4
    content = json.loads(listing([run], as_json=True))
    assert len(content["records"]) == 3 and [one["state"] for one in content["starts"]] == ["killed", "stopped"]


def test_tables_fit_120_columns_whatever_the_names_are(tmp_path: Path) -> None:
    long = {"method_name": "a_method_with_a_name", "encoder_name": "vit_base_dinov2_reg"}
    figures = {"epochs": 100_000, "data": {"slices": 123_456_789_012}, "state": "broken off", "reason": "why? " * 60}
    run = _write(tmp_path / ("x" * 90) / "end", epoch=99_999, values=long, command="python " * 50, **figures)
    for text in (listing([tmp_path]), listing([run])):
        assert max(map(len, text.splitlines())) <= 120
    assert "xxx/end" in listing([tmp_path])


@pytest.mark.parametrize(("minutes", "state"), [(14, "running"), (16, "silent")])
def test_a_run_that_gave_no_sign_of_life_is_silent(minutes: int, state: str, tmp_path: Path) -> None:
    run = _write(tmp_path / "a", age=timedelta(minutes=minutes))
    assert run_row(run, "a")["state"] == state


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    run = _write(tmp_path / "a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert len(json.loads(listing([run], as_json=True))["records"]) == 3


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("run.json", '{"format": 1, "sta', r"run\.json is damaged .*checkpoints/"),
        ("run.json", "[]", r"run\.json is damaged"),
        ("run.json", '{"starts": []}', r"run\.json lists no start"),
        ("metrics.jsonl", '{"epoch": 1}\n\x00\x00\n{"epoch": 3}\n', r"metrics\.jsonl is damaged .*line 2"),
        ("metrics.jsonl", "7\n", r"metrics\.jsonl is damaged .*line 1"),
    ],
)
def test_damage_is_one_sentence(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    (_write(tmp_path / "a") / name).write_text(content)
    with pytest.raises(DataError, match=sentence) as caught:
        listing([tmp_path])
    assert "\n" not in str(caught.value)


def test_folders_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["runs", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no run of pretraining (run.json); give" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "missing")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_the_command_prints_and_needs_neither_torch_nor_monai(tmp_path: Path) -> None:
    _write(tmp_path / "runs" / "a")
    code = (
        "import sys; from monai_ssl_transfer.cli import main; main(['runs']); "
        "sys.exit(bool({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("a ")
