"""A server that is told to stop does not wait for its trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="needs the label extra")

import psutil

SERVER = """
import signal, sys, time
from monailabel.utils.async_tasks.utils import background_processes, run_background_task
from monai_ssl_transfer.label.stopping import end_tasks_when_stopped

signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # as uvicorn: the server ends
end_tasks_when_stopped()
for _ in range(2):  # one that runs and one that waits for it
    run_background_task({"model": "none"}, "train")
while not background_processes["train"]:
    time.sleep(0.01)
print(next(iter(background_processes["train"].values())).pid, flush=True)
time.sleep(600)
"""
ENDLESS = """
import sys, time
if "monailabel.interfaces.utils.app" in sys.orig_argv:  # MONAI Label's program of a training
    time.sleep(600)
"""


def test_a_stopped_server_ends_its_trainings(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ENDLESS)
    places = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": places}
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        training = psutil.Process(int(server.stdout.readline()))
        assert training.is_running()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 3
        gone, _ = psutil.wait_procs([training], timeout=60)
        assert gone
    finally:
        server.kill()
