"""Images per second and memory of every method: this package's engine against lightly's documented loop.

    python benchmarks/methods.py [--methods ...] [--encoders resnet18 vit_tiny] [--rounds 5]
    python benchmarks/methods.py --device cuda --encoders resnet50 vit_small --batch_size 256 --workers 8
    python benchmarks/methods.py --table       # prints the last results of the CPU, or with --device cuda the GPU's

Both sides have the same encoder, heads, batch, view sizes, optimizer and number of workers, and images of the same
pixels: ours from a store of generated CT slices or pictures, lightly's from PNG files of three HU windows, or from the
JPEG files of which the store was made. Each side is a process of its own that makes its steps in turns with the other.
On one CPU thread a step counts the time of the processor, which does not see other programs; else the wall's.

Memory is the largest resident set less what the imports need (on a GPU what torch allocated). On a GPU a row also has
the share of a step that views take, and the share of the card's measured bf16 matrix rate that the step's operations
reach. Ours must never be slower: rows in which the interval ends below 1 are printed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel
import numpy as np
import torch
from lightly_methods import (
    BARLOW_HEAD,
    MAE_DECODER,
    MOCO3_HEAD,
    MOCO_HEAD,
    MOMENTUM,
    PROTOTYPES,
    QUEUE,
    SIMCLR_HEAD,
    Lightly,
)
from torch import nn
from views import ct_slices, rgb_pictures, windowed_picture

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, slice_loader
from monai_ssl_transfer.engines.pretraining.collapse import CollapseMonitor
from monai_ssl_transfer.engines.pretraining.progress import PretrainingProgress
from monai_ssl_transfer.engines.pretraining.schedules import CosineOptions, CosineScheduleHandler
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer, StepOptions
from monai_ssl_transfer.methods.barlow_twins import BarlowTwins
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod
from monai_ssl_transfer.methods.dino import DINO, DINOSchedule
from monai_ssl_transfer.methods.dinov2 import DINOv2
from monai_ssl_transfer.methods.mae import MAE, MAEDecoderOptions
from monai_ssl_transfer.methods.moco import MoCoV2
from monai_ssl_transfer.methods.moco_v3 import MoCoV3
from monai_ssl_transfer.methods.parameters import parameter_groups
from monai_ssl_transfer.methods.simclr import SimCLR
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.views.batched import BatchedViews
from monai_ssl_transfer.views.recipes import recipe

RESULTS = Path(__file__).parent / "results"
CONVOLUTIONAL = ("simclr", "simclr_v2", "moco_v2", "moco_v3", "barlow_twins", "dino")
TRANSFORMER = ("moco_v3", "dino", "mae", "dinov2")
METHODS: dict[str, Callable[[nn.Module], SSLMethod]] = {
    "simclr": lambda e: SimCLR(e, *SIMCLR_HEAD),
    "simclr_v2": lambda e: SimCLR(e, *SIMCLR_HEAD, layers=3),
    "moco_v2": lambda e: MoCoV2(e, QUEUE, MOMENTUM, 0.2, *MOCO_HEAD),
    "moco_v3": lambda e: MoCoV3(e, 0.2, MOMENTUM, *MOCO3_HEAD),
    "barlow_twins": lambda e: BarlowTwins(e, *BARLOW_HEAD),
    "dino": lambda e: DINO(e, PROTOTYPES, DINOSchedule(momentum=MOMENTUM)),
    "mae": lambda e: MAE(e, decoder=MAEDecoderOptions(**MAE_DECODER)),
    "dinov2": lambda e: DINOv2(e, PROTOTYPES, DINOSchedule(momentum=MOMENTUM)),
}
VIEWS_CLAIM = 0.05


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        method: name of the method.
        encoder: name of the encoder.
        kind: "ct" or "rgb".
        image_size: side of the (global) views.
        batch_size: images per step.
        workers: loader processes of either side.
        device: "cpu" or "cuda".
        precision: "fp32" or "bf16", of both sides.
        data: folder with the stores and the files.
    """

    method: str
    encoder: str
    kind: str
    image_size: int
    batch_size: int
    workers: int
    device: str
    precision: str
    data: str


class Ours:
    """The trainer with the handlers that a bundle gives it for every step."""

    def __init__(self, case: Case):
        logging.disable(logging.WARNING)
        self.case = case
        self.method = METHODS[case.method](build_encoder(case.encoder, image_size=case.image_size))
        channels = "rgb" if case.kind == "rgb" else "windows"
        dataset = SliceDataset(Path(case.data) / f"{case.kind}_store", channels)
        sampler = ArithmeticBatchSampler(len(dataset), case.batch_size, 0)
        loader = slice_loader(dataset, sampler, case.workers)
        self.views = BatchedViews(recipe(case.method, case.kind, case.image_size, case.encoder), channels, 0)
        self.method.to(case.device)
        optimizer = torch.optim.AdamW(parameter_groups(self.method, 1e-4), lr=1e-4)
        options = CosineOptions(1e-4, 1e-4, 0, 1e-4)
        handlers = [
            CosineScheduleHandler(optimizer, options, case.batch_size),
            PretrainingProgress(),
            CollapseMonitor(self.method),
        ]
        step = StepOptions(precision=case.precision, channels_last=case.device != "cpu")
        arguments = (case.device, 1, loader, self.method, optimizer, self.views, step)
        self.trainer = PretrainingTrainer(*arguments, train_handlers=handlers, epoch_length=1)

    def steps(self, count: int, done: Callable[[int], None]) -> None:
        """Make so many optimizer steps; `done` is called with the number of each."""
        from ignite.engine import Events

        trainer = self.trainer
        trainer.state.epoch_length = count
        trainer.state.max_epochs = trainer.state.epoch + 1
        # an iteration that is no multiple of the length would be taken for the middle of an epoch
        trainer.state.iteration = first = trainer.state.epoch * count
        event = trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: done(e.state.iteration - first))
        try:
            trainer.run()
        finally:
            event.remove()


def lightly_side(case: Case) -> Lightly:
    """The other side on the files of the same images."""
    local = [view.size for view in recipe(case.method, case.kind, case.image_size, case.encoder)][-1]
    sizes = {
        "image_size": case.image_size,
        "local": local,
        "batch": case.batch_size,
        "workers": case.workers,
        "device": case.device,
        "precision": case.precision,
    }
    encoder = build_encoder(case.encoder, image_size=case.image_size)
    return Lightly(case.method, encoder, Path(case.data) / f"{case.kind}_files", sizes)


def serve(side: str, case: Case, pipe: Connection) -> None:
    """A child process: builds one side and makes rounds of steps whenever it is told to."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    cuda = case.device != "cpu"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    try:
        runner = Ours(case) if side == "ours" else lightly_side(case)
        pipe.send(None)
        while (order := pipe.recv()) is not None:
            if order == "views":
                pipe.send(gpu_figures(runner, case))
                continue
            warm, count = order
            clock = Clock(warm, warm + count, case)
            runner.steps(warm + count, clock)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
            memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak
            pipe.send({"seconds": clock.seconds / count, "wall": clock.wall / count, "memory": memory})
    except Exception as error:  # noqa: BLE001 (the parent says it)
        pipe.send(f"{type(error).__name__}: {error}")


class Clock:
    """Time between the end of the step `first` (0: the start) and the end of the step `last`."""

    def __init__(self, first: int, last: int, case: Case):
        self.first, self.last = first, last
        self.cuda, self.own_time = case.device != "cpu", case.device == "cpu" and case.workers == 0
        self.seconds = self.wall = 0.0
        self.start = self._now()

    def _now(self) -> tuple[float, float]:
        if self.cuda:
            torch.cuda.synchronize()
        return time.process_time() if self.own_time else time.perf_counter(), time.perf_counter()

    def __call__(self, step: int) -> None:
        if step == self.first:
            self.start = self._now()
        elif step == self.last:
            now = self._now()
            self.seconds, self.wall = now[0] - self.start[0], now[1] - self.start[1]


def gpu_figures(ours: Ours, case: Case) -> dict[str, float]:
    """Share of a step that the views take, and of the card's matrix rate that the step reaches."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = {name: value.to(case.device) for name, value in next(iter(ours.trainer.state.dataloader)).items()}
    arguments = (batch["image"], batch["size"], batch["index"], 0)
    view_seconds = timed(lambda: ours.views(*arguments), 10)
    views = ours.views(*arguments)
    keys = SampleKeys(0, 0, batch["index"])
    ours.method.train()
    with FlopCounterMode(display=False) as counter, torch.autocast("cuda", torch.bfloat16):
        ours.method(views, 0.5, keys)["loss"].backward()
    ours.method.zero_grad(set_to_none=True)
    a, b = (torch.randn(8192, 8192, device=case.device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * 8192**3 / timed(lambda: a @ b, 20)
    return {
        "view_seconds": view_seconds,
        "flops_per_image": counter.get_total_flops() / case.batch_size,
        "matrix_rate": rate,
    }


def timed(call: Callable[[], Any], repeats: int) -> float:
    """Least seconds of a call on the GPU, after three to warm up."""
    found = []
    for number in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if number >= 3:
            found.append(time.perf_counter() - start)
    return min(found)


def measure(case: Case, rounds: int, steps: int, context: Any) -> dict[str, Any]:
    """Both sides in turns."""
    sides: dict[str, tuple[Any, Connection]] = {}
    for side in ("ours", "lightly"):
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(side, case, theirs), daemon=True)
        process.start()
        sides[side] = (process, mine)
    try:
        for side, (_, pipe) in sides.items():
            answer(side, pipe)
        # the batches that workers have prepared meanwhile are used up by the steps that do not count
        warm = 2 * case.workers + 1
        found: dict[str, list[dict[str, float]]] = {"ours": [], "lightly": []}
        for number in range(rounds + 1):
            for side in sorted(sides, reverse=number % 2 == 0):
                sides[side][1].send((warm, steps) if number else (0, 2))
                result = answer(side, sides[side][1])
                if number:
                    found[side].append(result)
        extra = {}
        if case.device != "cpu":
            sides["ours"][1].send("views")
            extra = answer("ours", sides["ours"][1])
    finally:
        for process, pipe in sides.values():
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join(30)
            process.terminate()
    return summary(case, found, extra)


def answer(side: str, pipe: Connection) -> Any:
    """What a child says; its error is ours."""
    result = pipe.recv()
    if isinstance(result, str):
        raise RuntimeError(f"{side}: {result}")
    return result


def summary(case: Case, found: dict[str, list[dict[str, float]]], extra: dict[str, float]) -> dict[str, Any]:
    """Figures of one case."""
    seconds = {side: np.array([one["seconds"] for one in found[side]]) for side in found}
    memory = {side: max(one["memory"] for one in found[side]) for side in found}
    draws = np.random.default_rng(0).integers(0, len(seconds["ours"]), (2000, len(seconds["ours"])))
    ratios = np.median(seconds["lightly"][draws], axis=1) / np.median(seconds["ours"][draws], axis=1)
    result = {
        **{name: getattr(case, name) for name in ("method", "encoder", "kind", "image_size", "batch_size", "workers")},
        "seconds": {side: values.tolist() for side, values in seconds.items()},
        "wall": {side: [one["wall"] for one in found[side]] for side in found},
        "images_per_second": {side: case.batch_size / float(np.median(values)) for side, values in seconds.items()},
        "ratio": float(np.median(seconds["lightly"]) / np.median(seconds["ours"])),
        "interval": np.percentile(ratios, [2.5, 97.5]).tolist(),
        "memory_mib": memory,
        "load": os.getloadavg()[0],
    }
    if extra:
        step = float(np.median(seconds["ours"]))
        rate = result["images_per_second"]["ours"] * extra["flops_per_image"]
        result |= extra | {"view_share": extra["view_seconds"] / step, "roofline_share": rate / extra["matrix_rate"]}
    return result


def prepare(folder: Path, count: int) -> None:
    """Generated slices and pictures of 512 x 512 pixels: stores for one side, files for the other."""
    from PIL import Image

    for kind in ("ct", "rgb"):
        (folder / f"{kind}_files").mkdir(parents=True)
    slices = ct_slices(count)
    (folder / "ct").mkdir()
    volume = nibabel.Nifti1Image(slices.transpose(2, 1, 0), np.diag([0.7, 0.7, 5.0, 1.0]))
    nibabel.save(volume, folder / "ct" / "generated.nii.gz")
    for number, slice_ in enumerate(slices):
        windowed_picture(slice_).save(folder / "ct_files" / f"{number:04d}.png")
    for number, picture in enumerate(rgb_pictures(count)):
        Image.fromarray(picture).save(folder / "rgb_files" / f"{number:04d}.jpg", quality=95)
    sources = {"ct": ("ct", "ct"), "frames": ("rgb_files", "rgb")}
    for kind, (source, name) in sources.items():
        more = ["--near-duplicates", "-1"] if kind == "frames" else []
        places = [str(folder / source), "--out", str(folder / f"{name}_store")]
        command = [sys.executable, "-m", "monai_ssl_transfer.cli", "ingest", kind, *places, *more]
        subprocess.run(command, check=True, capture_output=True)


def row(case: dict[str, Any]) -> str:
    """One line of the table."""
    speed, memory = case["images_per_second"], case["memory_mib"]
    gpu = f" {case['view_share']:.1%} | {case['roofline_share']:.0%} |" if "view_share" in case else ""
    return (
        f"| {case['method']} | {case['encoder']} | {case['kind']} | {speed['ours']:.1f} | {speed['lightly']:.1f} | "
        f"**{case['ratio']:.2f}x** ({case['interval'][0]:.2f} to {case['interval'][1]:.2f}) | "
        f"{memory['ours']:.0f} | {memory['lightly']:.0f} | {case['load']:.1f} |{gpu}"
    )


def head(gpu: bool) -> str:
    """Head of the table."""
    names = ["method", "encoder", "images", "ours, images/s", "lightly, images/s", "ratio (95 %)"]
    names += ["ours, MiB", "lightly, MiB", "load", *(["views' share", "share of the matrix rate"] if gpu else [])]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def short(report: dict[str, Any]) -> list[str]:
    """One sentence for every row that falls short of what is claimed."""
    found = []
    for case in report["cases"]:
        name = f"{case['method']} with {case['encoder']} on {case['kind']}"
        if "error" in case:
            found.append(f"{name}: {case['error']}")
            continue
        if case["interval"][1] < 1:
            found.append(f"{name}: ours is slower ({case['ratio']:.2f}x).")
        if case.get("view_share", 0.0) > VIEWS_CLAIM:
            found.append(f"{name}: views take {case['view_share']:.1%} of a step, more than {VIEWS_CLAIM:.0%}.")
    return found


def environment(device: str) -> dict[str, Any]:
    """Versions and machine."""
    names = ("torch", "torchvision", "lightly", "timm", "monai", "pytorch-ignite", "pillow", "numpy")
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if device != "cpu" else None,
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "vit_tiny"])
    parser.add_argument("--kinds", nargs="+", choices=("ct", "rgb"), default=["ct", "rgb"])
    parser.add_argument("--image_size", type=int, help="default: 96, and 224 on a GPU")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="per round, of those that count")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="default: results/methods.json, or methods_cuda.json")
    parser.add_argument("--table", action="store_true", help="print the last results, measure nothing")
    arguments = parser.parse_args()
    gpu = arguments.device != "cpu"
    out = arguments.out or RESULTS / ("methods_cuda.json" if gpu else "methods.json")
    if arguments.table:
        report = json.loads(out.read_text())
        print("\n".join([head(gpu), *(row(case) for case in report["cases"] if "error" not in case), *short(report)]))
        return
    report = {"environment": environment(arguments.device), "cases": []}
    # children start with everything imported, so that their memory and time differ by what they do
    context = multiprocessing.get_context("spawn" if gpu else "forkserver")
    if not gpu:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(RESULTS.parent), os.environ.get("PYTHONPATH", "")])
        context.set_forkserver_preload(["methods"])
    print(head(gpu), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), max(64, 4 * arguments.batch_size))
        precision, size = ("bf16", 224) if gpu else ("fp32", 96)
        common = (
            arguments.image_size or size,
            arguments.batch_size,
            arguments.workers,
            arguments.device,
            precision,
            folder,
        )
        for encoder in arguments.encoders:
            for method in TRANSFORMER if encoder.startswith("vit") else CONVOLUTIONAL:
                for kind in arguments.kinds if method in arguments.methods else ():
                    case = Case(method, encoder, kind, *common)
                    try:
                        report["cases"].append(measure(case, arguments.rounds, arguments.steps, context))
                        print(row(report["cases"][-1]), flush=True)
                    except (RuntimeError, EOFError) as error:
                        # one side's memory may not suffice: the others are still worth knowing
                        report["cases"].append(
                            {"method": method, "encoder": encoder, "kind": kind, "error": str(error)}
                        )
                    out.parent.mkdir(parents=True, exist_ok=True)
                    out.write_text(json.dumps(report, indent=1) + "\n")  # after every row: a run takes its time
    print("\n".join(short(report)) or "Nowhere slower.")


if __name__ == "__main__":
    main()
