"""A pretraining run of seconds; tests import it, and run it as a program (one or several processes) to kill it.

The method has everything that resuming must carry: dropout (global random state), batch-norm statistics, a momentum
encoder, a queue, an optimizer with moments and a schedule.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from torch import Tensor, nn

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, slice_loader
from monai_ssl_transfer.engines.checkpoints.checkpoint import ExactResumeHandler, ResumeOptions
from monai_ssl_transfer.engines.pretraining.lost_process import MARGIN, LostProcessWatch
from monai_ssl_transfer.engines.pretraining.progress import EpochRecords
from monai_ssl_transfer.engines.pretraining.schedules import CosineOptions, CosineScheduleHandler
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer, StepOptions
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod
from monai_ssl_transfer.methods.distributed import gather_detached


class TinyStore:
    """Random slices in memory with the interface of a slice store."""

    def __init__(self, count: int = 44, side: int = 12) -> None:
        self.slices = np.random.default_rng(0).integers(-1000, 1000, (count, side, side)).astype(np.int16)
        self.index = np.zeros(count, dtype=[("label", "i2"), ("body_part", "u1")])
        self.index["label"], self.index["body_part"] = -1, 255

    def __len__(self) -> int:
        return len(self.slices)

    def read(self, number: int) -> np.ndarray:
        return self.slices[number]

    def patient_numbers(self) -> np.ndarray:
        return np.arange(len(self)) // 4


class TinyMethod(SSLMethod):
    def __init__(self) -> None:
        super().__init__(tiny_encoder())
        self.momentum_encoder = tiny_encoder()
        self.momentum_encoder.load_state_dict(self.encoder.state_dict())
        self.momentum_encoder.requires_grad_(False)
        self.register_buffer("queue", torch.randn(8, 6))

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        embedding = self.encoder(views[0])
        with torch.no_grad():
            target = self.momentum_encoder(views[1])
        return {"query": embedding, "target": target, "embedding": embedding.detach()}

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        query, target = representations["query"], representations["target"]
        loss = (query - target).square().mean() + (query @ self.queue.T).square().mean() * 0.01
        self.queue = torch.cat([gather_detached(target), self.queue])[:8].detach()
        return {"loss": loss}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        for slow, fast in zip(self.momentum_encoder.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 0.1 * (1 - progress))


def tiny_encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(100, 6)
    )


def tiny_views(image: Tensor, size: Tensor, sample: Tensor, epoch: int) -> list[Tensor]:
    """Two views whose change depends on the sample and the epoch alone."""
    shift = ((sample * 7 + epoch * 13) % 11).float().view(-1, 1, 1, 1) / 11
    return [image.float() / 1000 + shift, image.float().flip(-1) / 1000 - shift]


def build(folder: Path, workers: int = 0, epochs: int = 3, **changes: Any) -> PretrainingTrainer:
    torch.manual_seed(3)
    method = changes.pop("method", None) or TinyMethod()
    store = changes.pop("store", None) or TinyStore()
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.01, weight_decay=0.1)
    schedule = CosineScheduleHandler(optimizer, CosineOptions(0.2, 0.0, 1, 0.1, 0.3), batch_size=8)
    records = EpochRecords(folder, optimizer)
    resume = ResumeOptions(changes.pop("checkpoint_every", 2), changes.pop("resume", True))
    handler = ExactResumeHandler(folder / "checkpoints", {"method": "tiny", "seed": changes.pop("seed", 3)}, resume)
    sampler = ArithmeticBatchSampler(len(store), 8, 3, idist.get_rank(), idist.get_world_size())
    return PretrainingTrainer(
        "cpu",
        epochs,
        slice_loader(SliceDataset(store, "single"), sampler, workers),
        method,
        optimizer,
        changes.pop("views", tiny_views),
        changes.pop("options", StepOptions(clip_norm=1.0)),
        [handler, schedule, *changes.pop("handlers", []), records],
    )


def main() -> None:
    """Run, and say each finished step on standard output, so that a test can kill at a chosen one."""
    from ignite.engine import Events

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--time-limit", type=float, default=60.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        idist.initialize("gloo", timeout=timedelta(seconds=arguments.time_limit + MARGIN))
    trainer = build(arguments.folder, arguments.workers, handlers=[LostProcessWatch(arguments.time_limit)])

    @trainer.on(Events.ITERATION_COMPLETED)
    def say(engine: PretrainingTrainer) -> None:
        sys.stdout.write(f"{engine.state.iteration}\n")
        sys.stdout.flush()
        sys.stdin.readline()

    trainer.run()
    end = "end.pt" if idist.get_rank() == 0 else f"end_{idist.get_rank()}.pt"
    torch.save({"method": trainer.method.state_dict()}, arguments.folder / end)
    idist.finalize()


if __name__ == "__main__":
    main()
