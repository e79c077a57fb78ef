from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run
import torch

from monai_ssl_transfer.engines.checkpoints.files import checkpoints, write_checkpoint
from monai_ssl_transfer.engines.pretraining.trainer import StepOptions
from monai_ssl_transfer.errors import TrainingError

_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def _weights(trainer: tiny_run.PretrainingTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.method.state_dict().items()}


def _require_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that nobody disturbed (3 epochs of 5 steps)."""
    trainer = tiny_run.build(tmp_path_factory.mktemp("alone"))
    trainer.run()
    return _weights(trainer)


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    script = str(Path(tiny_run.__file__))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, script, str(folder), *arguments], text=True, env=_ENVIRONMENT, **pipes)


def _advance(process: subprocess.Popen[str], step: int) -> None:
    """Let the run go on until it says that this step is done; it then waits for us."""
    assert process.stdin is not None and process.stdout is not None
    while True:
        said = process.stdout.readline()
        assert said, process.stderr.read() if process.stderr else ""
        if int(said) == step:
            return
        process.stdin.write("\n")
        process.stdin.flush()


def test_killed_in_mid_epoch_ends_bitwise_the_same(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """SIGKILL at step 8 of 15 (checkpoint at 6); resumed in a new process with two workers instead of none."""
    process = _start(tmp_path)
    _advance(process, 8)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "end.pt").exists()

    process = _start(tmp_path, "--workers", "2")
    _, said = process.communicate("\n" * 20)
    assert process.returncode == 0, said
    assert "going on after step 8" in said or "going on after step 6" in said
    _require_equal(torch.load(tmp_path / "end.pt", weights_only=True)["method"], alone)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_the_step_and_ends(number: signal.Signals, alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    process = _start(tmp_path, "--workers", "1")
    _advance(process, 7)
    process.send_signal(number)
    _, said = process.communicate("\n" * 20)
    assert process.returncode == 128 + number, said
    newest = checkpoints(tmp_path / "checkpoints")[0]
    assert newest.name in ("step_0000000007.ckpt", "step_0000000008.ckpt")
    trainer = tiny_run.build(tmp_path)
    trainer.run()
    _require_equal(_weights(trainer), alone)


class _BreaksOnce:
    """Views that fail at one call, as a full GPU or a damaged slice would."""

    def __init__(self, call: int) -> None:
        self.calls, self.call = 0, call

    def __call__(self, *arguments: torch.Tensor) -> list[torch.Tensor]:
        self.calls += 1
        if self.calls == self.call:
            raise RuntimeError("broken")
        return tiny_run.tiny_views(*arguments)


def test_an_unfinished_step_is_not_saved(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    trainer = tiny_run.build(tmp_path, views=_BreaksOnce(8), checkpoint_every=3)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.run()
    assert checkpoints(tmp_path / "checkpoints")[0].name == "step_0000000006.ckpt"
    trainer = tiny_run.build(tmp_path)
    trainer.run()
    _require_equal(_weights(trainer), alone)


def test_an_exception_between_steps_saves(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    store = tiny_run.TinyStore()
    damaged = tiny_run.TinyStore()
    reads = []

    def read(number: int) -> object:
        reads.append(number)
        if len(reads) > 7 * 8:
            raise OSError("the disk went away")
        return store.read(number)

    damaged.read = read  # type: ignore[method-assign]
    with pytest.raises(OSError, match="went away"):
        tiny_run.build(tmp_path, store=damaged, checkpoint_every=100).run()
    assert checkpoints(tmp_path / "checkpoints")[0].name == "step_0000000007.ckpt"
    trainer = tiny_run.build(tmp_path)
    trainer.run()
    _require_equal(_weights(trainer), alone)


def test_accumulated_steps_resume_exactly(tmp_path: Path) -> None:
    options = StepOptions(accumulation=2)
    undisturbed = tiny_run.build(tmp_path / "a", options=options)
    undisturbed.run()
    broken = tiny_run.build(tmp_path / "b", options=options, views=_BreaksOnce(9), checkpoint_every=1)
    with pytest.raises(RuntimeError):
        broken.run()
    assert checkpoints(tmp_path / "b" / "checkpoints")[0].name == "step_0000000008.ckpt"
    resumed = tiny_run.build(tmp_path / "b", options=options)
    resumed.run()
    _require_equal(_weights(resumed), _weights(undisturbed))


def test_a_finished_run_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = tiny_run.build(tmp_path, epochs=1)
    first.run()
    again = tiny_run.build(tmp_path, epochs=1)
    with caplog.at_level("INFO"):
        again.run()
    assert "this run is finished" in caplog.text
    _require_equal(_weights(first), _weights(again))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    tiny_run.build(tmp_path, epochs=1).run()
    with pytest.raises(TrainingError, match=r"seed 3 -> 4.*--output_dir.*--resume False"):
        tiny_run.build(tmp_path, epochs=1, seed=4).run()
    with pytest.raises(TrainingError, match="epochs 1 -> 2"):
        tiny_run.build(tmp_path, epochs=2).run()
    tiny_run.build(tmp_path, epochs=1, seed=4, resume=False).run()
    assert (tmp_path / "checkpoints.before_1").is_dir()
    assert len(checkpoints(tmp_path / "checkpoints")) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_is_never_used(
    damage: str, alone: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError):
        tiny_run.build(tmp_path, views=_BreaksOnce(8), checkpoint_every=3).run()
    newest, older = checkpoints(tmp_path / "checkpoints")
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[_weight_bytes(newest)] ^= 1
    newest.write_bytes(content)
    trainer = tiny_run.build(tmp_path)
    trainer.run()
    assert newest.name in caplog.text and "damaged" in caplog.text
    _require_equal(_weights(trainer), alone)
    for path in (newest, older):
        path.write_bytes(b"nothing")
    for path in checkpoints(tmp_path / "checkpoints"):
        path.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="Every checkpoint"):
        tiny_run.build(tmp_path).run()


def _weight_bytes(path: Path) -> int:
    """A place in the file that lies inside a tensor's numbers."""
    content = torch.load(path, weights_only=True)
    numbers = content["method"]["encoder.5.weight"].numpy().tobytes()
    return path.read_bytes().index(numbers) + 10


def test_a_full_disk_leaves_the_previous_checkpoint_whole(small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("1m") / "checkpoints"
    small = {"weights": torch.arange(100_000, dtype=torch.float32)}
    write_checkpoint(folder / "step_0000000001.ckpt", small)
    with pytest.raises(TrainingError, match=rf"{folder}.*No space left.*step_0000000001"):
        write_checkpoint(folder / "step_0000000002.ckpt", {"weights": torch.zeros(1_000_000)})
    assert [path.name for path in folder.iterdir()] == ["step_0000000001.ckpt"]
    kept = torch.load(folder / "step_0000000001.ckpt", weights_only=True)
    assert torch.equal(kept["weights"], small["weights"])
