"""Volume inference: speed against MONAI's SliceInferer over the same network, and the memory of the liver bundle.

    python benchmarks/inference.py [--slices 48] [--rounds 3] [--memory-slices 800]

Speed: the same network and the same 512 x 512 slices in one process, rounds interleaved in turning order; once on
native pixels (the same work on both sides) and once at the bundle's working spacing of 1.5 mm. Memory: the peak of a
process that runs `inference.json` from loading to the written mask over a 512 x 512 x 800 volume.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer
from torch import Tensor

from monai_ssl_transfer.engines.transfer.inference import SliceVolumeInferer
from monai_ssl_transfer.networks.segmentation import build_unet
from monai_ssl_transfer.views.windows import HUToChannels

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "inference.json"
SPACING = 0.7


def body(slices: int, size: int = 512) -> np.ndarray:
    """A noisy cylinder in HU, (rows, columns, slices) int16."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = rows**2 / 0.5 + columns**2 / 0.8 < 1
    block = np.where(inside[..., None], 40, -1000) + rng.normal(0, 15, (size, size, 8))
    return np.tile(block.astype(np.int16), (1, 1, -(-slices // 8)))[..., :slices]


def measure_speed(slices: int, rounds: int) -> dict[str, float]:
    """Median seconds per volume of the three ways and their ratios."""
    network, to_channels = build_unet("resnet18").eval(), HUToChannels("windows")
    affine = torch.tensor([[0, -SPACING, 0, 0], [-SPACING, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    volume = MetaTensor(torch.from_numpy(body(slices)).float()[None, None], affine=affine)
    peer = SliceInferer(spatial_dim=2, roi_size=volume.shape[2:4], sw_batch_size=8)

    def of_peer() -> Tensor:
        return peer(volume.as_tensor(), lambda x: network(to_channels(x))).argmax(dim=1, keepdim=True).to(torch.uint8)

    ways: dict[str, Callable[[], Tensor]] = {
        "monai_slice_inferer": of_peer,
        "ours_native_pixels": lambda: SliceVolumeInferer(None)(volume, network),
        "ours_1_5_mm": lambda: SliceVolumeInferer(1.5)(volume, network),
    }
    with torch.no_grad():
        same = torch.equal(of_peer(), ways["ours_native_pixels"]().as_tensor())  # type: ignore[attr-defined]
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            names = list(ways)[number % 3 :] + list(ways)[: number % 3]
            for name in names:
                start = time.perf_counter()
                ways[name]()
                seconds[name].append(time.perf_counter() - start)
    found = {f"seconds_{name}": statistics.median(values) for name, values in seconds.items()}
    for name in ("ours_native_pixels", "ours_1_5_mm"):
        ratios = [peer / own for peer, own in zip(seconds["monai_slice_inferer"], seconds[name], strict=True)]
        found[f"speedup_{name}"] = statistics.median(ratios)
    return found | {"same_labels_on_native_pixels": same, "slices": slices, "rounds": rounds}


def measure_memory(slices: int, compressed: bool) -> dict[str, float]:
    """Peak resident memory of a process that segments one volume with the bundle."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / f"volume-0.nii{'.gz' if compressed else ''}"
        nibabel.save(nibabel.Nifti1Image(body(slices), np.diag([-SPACING, SPACING, 1.0, 1.0])), image)
        torch.save(build_unet("resnet18").state_dict(), Path(folder) / "model.pt")
        configs = [str(ROOT / "bundles/ct_liver_segmentation/configs/inference.json")]
        configs.append(str(ROOT / "configs/networks/unet_resnet18.json"))
        command = [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            str(configs),
            "--dataset_dir",
            str(image),
        ]
        command += ["--model_file", f"{folder}/model.pt", "--output_dir", f"{folder}/masks"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        seconds = time.perf_counter() - start
        mask = nibabel.load(next(Path(folder, "masks").glob("*_seg*")))
        if mask.shape != (512, 512, slices):
            raise SystemExit(f"the mask has shape {mask.shape}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return {"slices": slices, "peak_gib": peak, "limit_gib": 6.0, "seconds": seconds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-slices", type=int, default=800)
    parser.add_argument("--compressed", action="store_true", help="measure memory on .nii.gz")
    options = parser.parse_args()
    result = {
        "memory": measure_memory(options.memory_slices, options.compressed),
        "speed": measure_speed(options.slices, options.rounds),
        "network": "FlexibleUNet over resnet18",
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "machine": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "monai", "nibabel")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
