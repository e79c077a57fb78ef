"""How long until something happens: help, imports, and a bundle's first step against importing MONAI alone.

Every figure is the smallest of several fresh processes, taken in turns.

    python benchmarks/startup.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "startup.json"
CONFIG = ROOT / "bundles" / "ct_ssl_pretraining" / "configs" / "train.json"
STORE = """
import sys
import numpy as np
from monai_ssl_transfer.data.store_writer import SeriesEntry, SliceStoreWriter, encode_slice
with SliceStoreWriter(sys.argv[1]) as writer:
    image = np.random.default_rng(0).integers(-1000, 1000, (96, 96)).astype(np.int16)
    slices = [encode_slice(image, position=float(z), spacing=(1.0, 1.0), source=z) for z in range(16)]
    writer.append(SeriesEntry("0" * 32, "1" * 32, "nifti", 1.0, False, tuple(np.eye(4).ravel())), slices)
"""
FIRST_STEP = """
import sys
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
parser = ConfigParser()
parser.read_config(sys.argv[1])
parser.update({"dataset_dir": sys.argv[2], "output_dir": sys.argv[3], "encoder_name": "resnet18", "image_size": 32,
               "batch_size": 8, "num_workers": 0, "tensorboard": False, "device": "$torch.device('cpu')"})
parser.parse()
trainer = parser.get_parsed_content("train#trainer")
trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: engine.terminate(skip_completed=True))
trainer.run()
"""


def seconds(command: list[str]) -> float:
    """Wall time of a fresh process that must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - start


def commands(folder: Path, number: int) -> dict[str, list[str]]:
    python = sys.executable
    output = str(folder / f"run{number}")
    return {
        "python alone": [python, "-c", "pass"],
        "ssl-transfer --help": [python, "-m", "monai_ssl_transfer.cli", "--help"],
        "import monai_ssl_transfer": [python, "-c", "import monai_ssl_transfer"],
        "import monai": [python, "-c", "import monai.bundle, monai.engines, monai.handlers"],
        "bundle to first step": [python, "-c", FIRST_STEP, str(CONFIG), str(folder / "store"), output],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    loaded = "import sys, monai_ssl_transfer.cli; sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    subprocess.run([sys.executable, "-c", loaded], check=True)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", STORE, str(folder / "store")], check=True)
        for number in range(arguments.rounds):
            for what, command in commands(folder, number).items():
                times.setdefault(what, []).append(seconds(command))
    best = {what: min(values) for what, values in times.items()}
    result = {
        "seconds_min": best,
        "first_step_over_import_monai": best["bundle to first step"] / best["import monai"],
        "rounds": arguments.rounds,
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}",
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print("| what | seconds |\n|---|---|")
    for what, value in best.items():
        print(f"| {what} | {value:.2f} |")
    print(f"first step / import monai: {result['first_step_over_import_monai']:.2f}, load {result['load']:.1f}")


if __name__ == "__main__":
    main()
