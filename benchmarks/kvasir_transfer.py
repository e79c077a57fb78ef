"""Does pretraining on unlabelled frames help polyp segmentation? Every arm under one budget, with seeds and intervals.

    python benchmarks/kvasir_transfer.py --data ../shared/data/endoscopy --out runs/kvasir    # two cores, about an hour
    python benchmarks/kvasir_transfer.py --data ../shared/data/endoscopy --out runs/mae --method mae --encoder vit_tiny
    python benchmarks/kvasir_transfer.py --data KVASIR_SEG --out runs/kvasir --scale gpu --encoder resnet50 vit_small

It runs the commands of the README, printed as they are run: training from scratch (which draws the division), ingest of
all photographs but those of the test, pretraining, training from the pretrained encoder, evaluation of every model on
the held-out fifth at native resolution. What is done already is not done again. ``OUT/<encoder>/results.csv`` and
``results.md`` hold the outcome, ``eval/overlays.html`` of every run the pictures.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monai_ssl_transfer.demo.comparison import paired_difference

ROOT = Path(__file__).resolve().parents[1]
SEGMENTATION, PRETRAINING = "bundles/endoscopy_polyp_segmentation/configs", "bundles/endoscopy_ssl_pretraining/configs"
METRICS = ("dice", "iou")


@dataclass(frozen=True)
class Scale:
    """Sizes of one kind of machine.

    Args:
        pretraining: overlays and settings of the pretraining, by method.
        transfer: overlays and settings of every fine-tuning.
        steps: epochs and validation interval by label fraction; both arms have the same.
        workers: runs at a time.
    """

    pretraining: dict[str, tuple[list[str], list[str]]]
    transfer: tuple[list[str], list[str]]
    steps: dict[str, tuple[int, int]]
    workers: int


SCALES = {
    "two_cores": Scale(
        {
            "simclr": (
                ["configs/scale/few_frames.json"],
                ["--image_size=64", "--epochs=70", "--num_workers=0", "--knn_interval=0"],
            ),
            "mae": (
                ["configs/methods/mae.json"],
                [
                    "--image_size=96",
                    "--epochs=400",
                    "--batch_size=64",
                    "--learning_rate=0.004",
                    "--decoder_width=128",
                    "--decoder_depth=2",
                    "--num_workers=0",
                    "--knn_interval=0",
                ],
            ),
        },
        (["configs/scale/frames_two_cores.json"], ["--image_size=96", "--num_workers=0", "--learning_rate=0.001"]),
        {"0.1": (60, 20), "1.0": (8, 4)},
        2,
    ),
    "gpu": Scale(
        {
            "simclr": (
                ["configs/scale/few_frames.json", "configs/scale/one_gpu_bf16.json"],
                ["--image_size=224", "--epochs=400"],
            ),
            "mae": (
                ["configs/methods/mae.json", "configs/scale/one_gpu_bf16.json"],
                ["--image_size=224", "--epochs=800", "--batch_size=256"],
            ),
        },
        (["configs/scale/one_gpu_bf16.json"], ["--image_size=352"]),
        {"0.1": (200, 20), "1.0": (60, 10)},
        1,
    ),
}
PROTOCOLS = {
    "scratch": ["--encoder_learning_rate_factor=1.0"],
    "pretrained": ["--encoder_learning_rate_factor=1.0"],
    "pretrained_gentle": ["--encoder_learning_rate_factor=0.2"],
}
"""Settings by arm: a gentle arm's encoder learns at a fifth of the rate."""


@dataclass(frozen=True)
class Study:
    """One encoder on one machine: its folders and commands.

    Args:
        data: folders of the data set, one or more.
        out: everything goes below.
        encoder: name of the encoder.
        scale: sizes.
        method: of the pretraining.
    """

    data: list[str]
    out: Path
    encoder: str
    scale: Scale
    method: str

    @property
    def dataset(self) -> str:
        return repr(self.data) if len(self.data) > 1 else self.data[0]

    def folder(self, arm: str, fraction: str, seed: int) -> Path:
        return self.out / self.encoder / arm / f"fraction_{fraction}" / f"seed_{seed}"

    def transfer(self, arm: str, fraction: str, seed: int) -> None:
        """Train one model and evaluate it on the test photographs."""
        run = self.folder(arm, fraction, seed)
        if (run / "eval" / "summary.json").exists():
            return
        overlays, settings = self.scale.transfer
        configs = [f"{SEGMENTATION}/train.json", f"configs/networks/unet_{self.encoder}.json", *overlays]
        epochs, interval = self.scale.steps[fraction]
        weights = (
            [] if arm == "scratch" else [f"--encoder_weights={self.out / self.encoder}/pretraining/encoder.safetensors"]
        )
        training = [
            f"--label_fraction={fraction}",
            f"--epochs={epochs}",
            f"--val_interval={interval}",
            f"--seed={seed}",
        ]
        common = [f"--dataset_dir={self.dataset}", *settings]
        bundle(configs, [*common, f"--output_dir={run}", *training, *PROTOCOLS[arm], *weights], run / "train.log")
        evaluation = [configs[0], f"{SEGMENTATION}/evaluate.json", *configs[1:]]
        bundle(evaluation, [*common, f"--model_file={run / 'models' / 'model.pt'}"], run / "evaluate.log")

    def pretrain(self, record: Path) -> None:
        """Pretrain on all photographs but those that the record keeps for the test."""
        folder = self.out / self.encoder / "pretraining"
        if (folder / "done").exists():
            return
        store = self.out / "frames"
        for place in self.data:  # goes on where it was interrupted
            images = str(Path(place) / "images")
            command = ["ssl-transfer", "ingest", "frames", images, "--out", str(store), "--leave-out", str(record)]
            run([*command, "--near-duplicates", "-1"], self.out / "ingest.log")
        overlays, settings = self.scale.pretraining[self.method]
        configs = [f"{PRETRAINING}/train.json", *overlays, f"configs/encoders/{self.encoder}.json"]
        bundle(configs, [f"--dataset_dir={store}", f"--output_dir={folder}", *settings], folder / "train.log")
        (folder / "done").touch()

    def scores(self, arm: str, fraction: str, seed: int) -> dict[str, float]:
        """Means over the test photographs."""
        with (self.folder(arm, fraction, seed) / "eval" / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["class"] == "polyp"]
        return {name: float(np.mean([float(row[name]) for row in rows])) for name in METRICS}


def bundle(configs: list[str], settings: list[str], log: Path) -> None:
    """Run a bundle as a user does."""
    run([sys.executable, "-m", "monai.bundle", "run", "--config_file", repr(configs), *settings], log)


def run(command: list[str], log: Path) -> None:
    """Run a command from the project's folder; its output goes to a file."""
    print("$", shlex.join([Path(command[0]).name, *command[1:]]), flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with log.open("a") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=True, cwd=ROOT, env=environment)


def carry_out(study: Study, arms: list[str], seeds: int) -> None:
    """Everything, in as few steps after one another as the dependencies allow."""
    record = study.folder("scratch", "0.1", 0) / "frames.json"
    study.transfer("scratch", "0.1", 0)  # draws the division
    fractions = list(study.scale.steps)
    with ThreadPoolExecutor(study.scale.workers) as pool:
        others = [arm for arm in arms if arm != "scratch"]
        first = [pool.submit(study.pretrain, record)] if others else []
        first += [pool.submit(study.transfer, "scratch", f, s) for s in range(seeds) for f in fractions]
        for future in first:
            future.result()
        runs = [pool.submit(study.transfer, arm, f, s) for arm in others for s in range(seeds) for f in fractions]
        for future in runs:
            future.result()


def report(study: Study, arms: list[str], seeds: int) -> str:
    """Write the scores of every run; return the table."""
    rows, lines = (
        [],
        ["| labels | arm | Dice (SD over seeds) | IoU | Dice minus scratch, 95 % interval |", "|---|---|---|---|---|"],
    )
    for fraction in study.scale.steps:
        values = {arm: [study.scores(arm, fraction, seed) for seed in range(seeds)] for arm in arms}
        for arm, found in values.items():
            rows += [{"arm": arm, "fraction": fraction, "seed": seed, **one} for seed, one in enumerate(found)]
            dice = {name: [one["dice"] for one in values[name]] for name in (arm, "scratch")}
            difference = "" if arm == "scratch" or seeds < 2 else paired_difference(dice["scratch"], dice[arm])
            spread = np.std(dice[arm], ddof=1) if seeds > 1 else float("nan")
            shown = f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})" if difference else ""
            iou = np.mean([one["iou"] for one in found])
            lines.append(
                f"| {float(fraction):.0%} | {arm} | {np.mean(dice[arm]):.3f} ({spread:.3f}) | {iou:.3f} | {shown} |"
            )
    with (study.out / study.encoder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = "\n".join(lines)
    (study.out / study.encoder / "results.md").write_text(table + "\n")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Kvasir-SEG, or a folder of several such folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", choices=SCALES, default="two_cores")
    parser.add_argument("--encoder", nargs="+", default=["resnet18"])
    parser.add_argument("--method", choices=SCALES["two_cores"].pretraining, default="simclr")
    parser.add_argument("--arms", nargs="+", choices=PROTOCOLS, default=["scratch", "pretrained"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=None, help="runs at a time (default: as the scale has it)")
    arguments = parser.parse_args()
    arms = list(dict.fromkeys(["scratch", *arguments.arms]))
    data = arguments.data.resolve()
    folders = [data] if (data / "images").is_dir() else sorted(path.parent for path in data.glob("*/images"))
    if not folders:
        parser.error(f"{data} has no images/, nor has any folder in it: give Kvasir-SEG's folder")
    scale = SCALES[arguments.scale]
    scale = replace(scale, workers=arguments.workers or scale.workers)
    for encoder in arguments.encoder:
        study = Study([str(folder) for folder in folders], arguments.out.resolve(), encoder, scale, arguments.method)
        carry_out(study, arms, arguments.seeds)
        test = json.loads((study.folder("scratch", "0.1", 0) / "frames.json").read_text())["test"]
        print(f"\n{encoder}, {len(test)} test photographs\n{report(study, arms, arguments.seeds)}")


if __name__ == "__main__":
    main()
