"""What one of two processes does for the tests of equality between one process and two: ``RANK`` says which one."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import plain_losses
import tiny_methods
import torch
from ignite.engine import Events
from torch import Tensor, nn

from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer, StepOptions
from monai_ssl_transfer.methods import SSLMethod
from monai_ssl_transfer.methods.distributed import encode_interleaved

STOPPED_AFTER = 3


class SignalToOne:
    """Sends SIGTERM to the second process in the middle of an epoch."""

    def attach(self, engine: PretrainingTrainer) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED(once=STOPPED_AFTER), self.send)

    def send(self, _: PretrainingTrainer) -> None:
        if idist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)


class FirstDraw:
    """Keeps the first random number of a training."""

    def attach(self, engine: PretrainingTrainer) -> None:
        engine.add_event_handler(Events.STARTED, self.draw)

    def draw(self, _: PretrainingTrainer) -> None:
        self.value = float(torch.rand(()))


def frozen_prototypes(method: SSLMethod) -> None:
    """Let the last layer stand still in all steps."""
    method.schedule = replace(method.schedule, freeze_last_layer=2.0)  # type: ignore[arg-type]


def bad_at_second_step(method: SSLMethod) -> None:
    """Let the second process see no numbers in step 2."""
    represent = method.represent
    calls = []

    def poisoned(views: list[Tensor], progress: float, keys: Any = None) -> dict[str, Tensor]:
        calls.append(progress)
        if len(calls) == 2 and idist.get_rank() == 1:
            views = [view * float("nan") for view in views]
        return represent(views, progress, keys)

    method.represent = poisoned  # type: ignore[method-assign]


def compared(name: str, own: slice) -> Tensor:
    """A method's loss of this process's part of the outputs that `plain_losses` makes."""
    method = tiny_methods.METHODS[name][0]()
    inputs = plain_losses.inputs(name)
    plain_losses.prepare(name, method)
    return method.eval().compare({key: value[own] for key, value in inputs.items()}, 0.5)["loss"].detach()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    idist.initialize("gloo", init_method=f"file://{folder}/rendezvous", world_size=2, rank=int(os.environ["RANK"]))
    result: dict[str, Any] = {}
    for name in tiny_methods.METHODS:
        result[name] = tiny_methods.run(name)
        result[f"{name} in pieces"] = tiny_methods.run(name, False, StepOptions(accumulation=2))
    for name in tiny_methods.WHOLE:
        result[name] = tiny_methods.run(name)
    rank = idist.get_rank()
    result["compared"] = {name: compared(name, slice(4 * rank, 4 * rank + 4)) for name in plain_losses.LOSSES}
    resuming = {"options": StepOptions(clip_norm=1.0), "epochs": 2}
    result["undisturbed"] = tiny_methods.run("moco_v2", **resuming)
    for part in ("stopped", "resumed"):
        handlers = [tiny_methods.checkpoints_in(folder / "exact")]
        if part == "stopped":
            handlers.append(SignalToOne())
        result[part] = tiny_methods.run("moco_v2", **resuming, handlers=handlers)
    handlers = [tiny_methods.checkpoints_in(folder / "on_one"), SignalToOne()]
    tiny_methods.run("simclr", **resuming, handlers=handlers)
    result["skipped"] = tiny_methods.run("dino", options=StepOptions(on_nonfinite="skip"), change=bad_at_second_step)
    draw = FirstDraw()
    result["frozen"] = tiny_methods.run("dino", change=frozen_prototypes, handlers=(draw,))
    result["draw"] = draw.value
    places = torch.arange(8.0)[:, None]
    result["order"] = encode_interleaved(nn.Identity(), places[4 * rank : 4 * rank + 4])
    torch.save(result, folder / f"{idist.get_rank()}.pt")
    idist.finalize()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
