"""Step time of PretrainingTrainer against a bare PyTorch loop over the same method, views and batches.

Both sides run in this process, in turns (A B A B ...); the figure is the ratio of the smallest round times with a
bootstrap interval over rounds. Data comes from memory, so that only the trainer differs.

    python benchmarks/engine.py [--rounds 8] [--steps 12] [--device cpu]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import ignite
import monai
import numpy as np
import torch

from monai_ssl_transfer.engines.pretraining.collapse import CollapseMonitor
from monai_ssl_transfer.engines.pretraining.progress import PretrainingProgress
from monai_ssl_transfer.engines.pretraining.schedules import CosineOptions, CosineScheduleHandler
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.methods.parameters import parameter_groups
from monai_ssl_transfer.methods.simclr import SimCLR
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.views.batched import BatchedViews
from monai_ssl_transfer.views.recipes import recipe

RESULTS = Path(__file__).parent / "results" / "engine.json"


def made(arguments: argparse.Namespace) -> tuple[SimCLR, torch.optim.Optimizer, BatchedViews, list[dict]]:
    """The same method, optimizer, views and batches for either side."""
    torch.manual_seed(0)
    method = SimCLR(build_encoder(arguments.encoder)).to(arguments.device).train()
    optimizer = torch.optim.SGD(parameter_groups(method, 1e-4), lr=0.01, momentum=0.9)
    views = BatchedViews(recipe("simclr", "ct", arguments.image_size), "windows", 0)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch_size, 1, 128, 128)
    batches = [
        {
            "image": torch.randint(-1000, 1000, shape, dtype=torch.int16, generator=generator),
            "size": torch.full((arguments.batch_size, 2), 128),
            "index": torch.arange(arguments.batch_size) + number * arguments.batch_size,
        }
        for number in range(arguments.steps)
    ]
    return method, optimizer, views, batches


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def clocks() -> tuple[float, float]:
    """Wall clock and this process's processor time; the latter does not see what else the machine does."""
    return time.perf_counter(), time.process_time()


def elapsed(start: tuple[float, float]) -> tuple[float, float]:
    now = clocks()
    return now[0] - start[0], now[1] - start[1]


class Bare:
    """The loop that one would write by hand."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = arguments.device
        self.method, self.optimizer, self.views, self.batches = made(arguments)
        self.epoch = 0

    def round(self) -> tuple[float, float]:
        wait(self.device)
        start = clocks()
        for batch in self.batches:
            image, size, index = (batch[key].to(self.device) for key in ("image", "size", "index"))
            views = self.views(image, size, index, self.epoch)
            loss = self.method(views, 0.5)["loss"]
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.method.after_step(0.5)
        wait(self.device)
        self.epoch += 1
        return elapsed(start)


class Ours:
    """The trainer with the handlers that the bundle gives it for every step."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = arguments.device
        method, optimizer, views, batches = made(arguments)
        options = CosineOptions(0.01, 0.01, 0, 1e-4)
        handlers = [
            CosineScheduleHandler(optimizer, options, arguments.batch_size),
            PretrainingProgress(),
            CollapseMonitor(method),
        ]
        self.trainer = PretrainingTrainer(
            arguments.device, 1, batches, method, optimizer, views, train_handlers=handlers
        )

    def round(self) -> tuple[float, float]:
        wait(self.device)
        start = clocks()
        self.trainer.state.max_epochs = self.trainer.state.epoch + 1
        self.trainer.run()
        wait(self.device)
        return elapsed(start)


def ratio_interval(first: list[float], second: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio of medians, over rounds."""
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(first), (2000, len(first)))
    ratios = np.median(np.array(first)[draws], axis=1) / np.median(np.array(second)[draws], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    sides = {"bare": Bare(arguments), "ours": Ours(arguments)}
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    processor: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(arguments.rounds + 1):
        order = list(sides) if number % 2 else list(reversed(sides))
        for name in order:
            seconds, processor_seconds = sides[name].round()
            if number:  # the first round warms up
                times[name].append(seconds / arguments.steps)
                processor[name].append(processor_seconds / arguments.steps)
    low, high = ratio_interval(times["ours"], times["bare"])
    result = {
        "what": f"seconds per step, SimCLR {arguments.encoder}, batch {arguments.batch_size}, "
        f"{arguments.image_size} px, {arguments.device}",
        "bare_min": min(times["bare"]),
        "ours_min": min(times["ours"]),
        "bare_median": float(np.median(times["bare"])),
        "ours_median": float(np.median(times["ours"])),
        "processor_time_ratio_of_minima": min(processor["ours"]) / min(processor["bare"]),
        "processor_time_ratio_of_medians": float(np.median(processor["ours"]) / np.median(processor["bare"])),
        "ratio_of_minima": min(times["ours"]) / min(times["bare"]),
        "ratio_of_medians_95": [low, high],
        "rounds": arguments.rounds,
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"torch": torch.__version__, "monai": monai.__version__, "ignite": ignite.__version__},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
