"""The pretraining bundle under torchrun, as its README says, and a process of it that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_ssl_transfer.engines.checkpoints.files import checkpoints

ROOT = Path(__file__).resolve().parents[2]


def _start(store: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    files = [f"{ROOT}/bundles/ct_ssl_pretraining/configs/{name}.json" for name in ("train", "multi_gpu_train")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    bundle = ["-m", "monai.bundle", "run", "--config_file", str([*files, f"{ROOT}/configs/scale/small_store.json"])]
    settings = f"--dataset_dir {store} --output_dir {folder} --batch_size 8 --image_size 32 --encoder_name resnet18"
    more = "--num_workers 0 --knn_interval 1 --device $torch.device('cpu') --backend gloo --accumulation 2"
    command = [*launcher, *bundle, *settings.split(), *more.split(), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _workers(launcher: int) -> list[int]:
    """The processes that torchrun started, in the order of their ranks."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    places = {}
    for child in map(int, children):
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [entry for entry in environment if entry.startswith(b"RANK=")]
        if ranks:
            places[int(ranks[0][5:])] = child
    return [places[rank] for rank in sorted(places)]


@pytest.mark.slow
def test_two_processes_pretrain_and_one_goes_on_with_what_a_lost_one_left(region_store: Path, tmp_path: Path) -> None:
    run = _start(region_store, tmp_path, "--epochs", "500", "--knn_interval", "0", "--checkpoint_every", "1")
    try:
        while not checkpoints(tmp_path / "checkpoints"):
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.2)
        os.kill(_workers(run.pid)[1], signal.SIGKILL)
        said, _ = run.communicate(timeout=200)
    finally:
        run.kill()
    assert run.returncode == 1
    assert "global batch 8 = 2 processes x 2 images x 2 pieces" in said.replace("batch / ", "")
    sentence = [line for line in said.splitlines() if "TrainingError: Another process" in line][-1]
    assert str(checkpoints(tmp_path / "checkpoints")[0]) in sentence
    assert "torchrun --nproc_per_node=2 -m monai.bundle run --config_file" in sentence


@pytest.mark.slow
def test_two_processes_pretrain_to_the_end(region_store: Path, tmp_path: Path) -> None:
    run = _start(region_store, tmp_path, "--epochs", "2")
    said, _ = run.communicate(timeout=400)
    assert run.returncode == 0, said
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert (tmp_path / "encoder.safetensors").is_file()
    assert len(checkpoints(tmp_path / "checkpoints")) == 2
