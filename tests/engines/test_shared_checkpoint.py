"""Two processes whose folders are not the same one do not go on from two checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run
import torch

from monai_ssl_transfer.engines.checkpoints.files import write_checkpoint
from monai_ssl_transfer.engines.checkpoints.shared import read_same_checkpoint
from monai_ssl_transfer.errors import TrainingError

_READS = """
import os, sys
from pathlib import Path
import torch
import ignite.distributed as idist
from monai_ssl_transfer.engines.checkpoints.shared import read_same_checkpoint
from monai_ssl_transfer.errors import TrainingError
rank, folder = int(os.environ["RANK"]), Path({folder!r})
idist.initialize("gloo", init_method=f"file://{{folder}}/place", world_size=2, rank=rank)
said = []
for case in sorted((folder / "cases").iterdir()):
    try:
        found = read_same_checkpoint(case / str(rank) if (case / str(rank)).exists() else case)
        said.append("none" if found is None else f"{{found[0].name}} {{found[1]['iteration']}}")
    except TrainingError as error:
        said.append(str(error))
    idist.barrier()
sys.stdout.write("\\n".join(said))
idist.finalize()
"""


def _checkpoint(folder: Path, step: int, value: float = 0.0) -> Path:
    path = folder / f"step_{step:010d}.ckpt"
    write_checkpoint(path, {"iteration": step, "method": torch.full((4,), value)}, keep=9)
    return path


def test_the_first_process_chooses_and_the_others_must_see_the_same(tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    _checkpoint(cases / "0 same", 3)
    damaged = _checkpoint(cases / "0 same", 4)
    damaged.write_bytes(b"nothing")
    _checkpoint(cases / "1 only first" / "0", 3)
    (cases / "1 only first" / "1").mkdir()
    (cases / "2 only second" / "0").mkdir(parents=True)
    _checkpoint(cases / "2 only second" / "1", 3)
    _checkpoint(cases / "3 another run" / "0", 3, 0.0)
    _checkpoint(cases / "3 another run" / "1", 3, 1.0)
    (cases / "4 none").mkdir()
    shutil.copytree(cases / "0 same", cases / "5 copies" / "0")
    shutil.copytree(cases / "0 same", cases / "5 copies" / "1")
    (_checkpoint(cases / "6 all damaged", 3)).write_bytes(b"nothing")
    places = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _READS.format(folder=str(tmp_path))],
            text=True,
            stdout=subprocess.PIPE,
            env=places | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        said = process.communicate(timeout=120)[0].splitlines()
        assert process.returncode == 0
        assert said[0] == said[5] == "step_0000000003.ckpt 3"
        for refused in said[1:4]:
            assert "output_dir (and --continued_run) must be the same folder on all nodes" in refused
        assert said[4] == "none"
        assert "is damaged" in said[6]
    assert read_same_checkpoint(cases / "4 none") is None


def test_tensors_that_do_not_fit_are_told_in_one_sentence(tmp_path: Path) -> None:
    tiny_run.build(tmp_path, epochs=1).run()
    larger = tiny_run.TinyMethod()
    larger.queue = torch.randn(16, 6)
    with pytest.raises(TrainingError, match=r"does not fit this run: .*queue.*--resume False"):
        tiny_run.build(tmp_path, epochs=1, method=larger).run()
