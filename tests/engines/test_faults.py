"""Faults that are made for real: a process killed or stopped, memory that ends."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

from monai_ssl_transfer.engines.pretraining import faults
from monai_ssl_transfer.engines.pretraining.faults import explained

LIMIT = 8  # seconds that a step may last


def _start_two(folder: Path) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, str(Path(tiny_run.__file__)), str(folder), "--time-limit", str(LIMIT)]
    places = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(command, text=True, env={**os.environ, **places, "RANK": rank, "LOCAL_RANK": rank}, **pipes)
        for rank in ("0", "1")
    ]


def _advance(processes: list[subprocess.Popen[str]], step: int) -> None:
    """Let all processes go on until they say that this step is done."""
    for number in range(1, step + 1):
        for process in processes:
            assert process.stdout is not None and process.stdin is not None
            said = process.stdout.readline()
            assert said, process.stderr.read() if process.stderr else ""
            assert int(said) == number
        if number < step:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_ends_the_run_with_a_sentence_and_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    processes = _start_two(tmp_path)
    survivor, lost = processes
    try:
        _advance(processes, 8)
        lost.send_signal(number)
        _, said = survivor.communicate("\n" * 20, timeout=200)
    finally:
        lost.kill()
        lost.communicate()
    assert survivor.returncode == 1, said
    last = said[said.rindex("Another process of this run was lost") :].strip().splitlines()
    assert "at step 9: look at what it said" in last[0]
    assert f"the last good state is {tmp_path / 'checkpoints' / 'step_0000000008.ckpt'}" in last[0]
    assert last[0].endswith(f"tiny_run.py {tmp_path} --time-limit {LIMIT}")

    alone = tiny_run.build(tmp_path)
    alone.run()
    assert alone.completed == 15


_FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch, tiny_run
torch.set_num_threads(1)
calls = []
def hungry(image, size, sample, epoch):
    calls.append(epoch)
    if len(calls) == 4:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
        image = image.repeat(1, 1, 3000, 1).float()
    return tiny_run.tiny_views(image, size, sample, epoch)
class Wide(tiny_run.TinyMethod):
    def represent(self, views, progress, keys=None):
        views[0].repeat(8, 8, 1, 1)
        return super().represent(views, progress, keys)
tiny_run.build(Path({folder!r}), method=Wide(), views=hungry, checkpoint_every=1).run()
"""


def test_full_memory_says_which_setting_to_lower(tmp_path: Path) -> None:
    program = _FULL.format(tests=str(Path(tiny_run.__file__).parent), folder=str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert "Memory is full at step 4: give the same command a higher --accumulation" in last
    for setting in ("--batch_size", "--image_size", "--precision bf16", "--activation_checkpointing true"):
        assert setting in last
    assert "step_0000000003.ckpt" in last


def test_other_errors_keep_their_own_words() -> None:
    assert explained(ValueError("out of memory, said a handler"), 3, "x") is None
    assert explained(RuntimeError("shapes do not fit"), 3, "x") is None
    # alone, nothing can be lost
    assert explained(RuntimeError("Connection closed by peer"), 3, "x") is None


def test_a_slow_disk_is_no_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults.idist, "get_world_size", lambda: 2)
    slow = OSError(errno.ETIMEDOUT, "Connection timed out", "/mnt/stores/ct/pixels.bin")
    assert explained(slow, 3, "x") is None
    assert "was lost" in str(explained(RuntimeError("Connection closed by peer"), 3, "x"))


def test_remedies_name_the_run_that_is_continued() -> None:
    said = str(explained(MemoryError(), 3, "runs/one/checkpoints/step_0000000003.ckpt"))
    assert "the same command a higher --accumulation" in said
    assert "--precision bf16 with --continued_run runs/one and a new --output_dir" in said
    assert "--continued_run" not in str(explained(MemoryError(), 3, "the start: no checkpoint was written yet"))


_EVALUATES = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch, tiny_run
import ignite.distributed as idist
from ignite.engine import Events
from monai_ssl_transfer.engines.pretraining.lost_process import LostProcessWatch
torch.set_num_threads(1)
Path({folder!r}, "imported_" + os.environ["RANK"]).touch()
while len(list(Path({folder!r}).glob("imported_*"))) < 2:  # the limit is for steps, not for imports
    time.sleep(0.05)
idist.initialize("gloo", init_method="file://{folder}/place", world_size=2, rank=int(os.environ["RANK"]),
                 timeout=timedelta(seconds=3))
class Slow:
    def attach(self, engine):
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: time.sleep(7))
trainer = tiny_run.build(Path({folder!r}), epochs=1, handlers=[Slow(), LostProcessWatch(2.0)])
trainer.run()
idist.finalize()
"""


def test_a_long_evaluation_is_no_lost_process(tmp_path: Path) -> None:
    program = _EVALUATES.format(tests=str(Path(tiny_run.__file__).parent), folder=str(tmp_path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            text=True,
            stderr=subprocess.PIPE,
            env=environment | {"RANK": one, "LOCAL_RANK": one},
        )
        for one in ("0", "1")
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
