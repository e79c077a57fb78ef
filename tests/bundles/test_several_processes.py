"""Every task bundle under two processes, with fewer photographs per process than a batch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from torch import distributed as dist
from torch import multiprocessing

from monai_ssl_transfer.data.phantoms.endoscopy_layouts import write_c3vd, write_kvasir_seg

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "endoscopy_polyp_segmentation": "unet_resnet18",
    "endoscopy_polyp_detection": "detector_resnet18",
    "endoscopy_depth_estimation": "unet_resnet18",
}


def train(rank: int, bundle: str, dataset: str, folder: str, override: dict[str, Any]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", OMP_NUM_THREADS="1")
    os.chdir(ROOT)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    configs = ROOT / "bundles" / bundle / "configs"
    files = [configs / "train.json", configs / "multi_gpu_train.json"]
    files.append(ROOT / "configs" / "networks" / f"{CASES[bundle]}.json")
    run = ConfigWorkflow(
        [str(file) for file in files], logging_file=False, workflow_type="train", dataset_dir=dataset,
        output_dir=f"{folder}/run", epochs=1, val_interval=1, num_workers=0, image_size=64, device=torch.device("cpu"),
        **override,
    )  # fmt: skip
    run.initialize()
    run.run()
    state = run.parser.get_parsed_content("network_def").state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name.endswith("weight")}, f"{folder}/{rank}.pt")
    run.finalize()


@pytest.mark.slow
@pytest.mark.parametrize("bundle", CASES)
def test_two_processes_train_one_network(bundle: str, tmp_path: Path):
    if bundle == "endoscopy_depth_estimation":
        dataset = write_c3vd(tmp_path / "data", 5, 2, 64)
    else:
        dataset = write_kvasir_seg(tmp_path / "data", 10, 64)
    multiprocessing.spawn(train, (bundle, str(dataset), str(tmp_path), {"batch_size": 6}), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    kept = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in first.items())
    assert len((tmp_path / "run" / "validation.jsonl").read_text().splitlines()) == 1
    recorded = json.loads((tmp_path / "run" / "frames.json").read_text())
    assert len(recorded["train"]) < 2 * 6
