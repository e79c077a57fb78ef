"""The trainer of self-supervised pretraining: MONAI's Trainer around one protocol (``methods.base.SSLMethod``)."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import EventEnum, Events
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod

logger = logging.getLogger(__name__)


class PretrainingEvents(EventEnum):
    """Events beside Ignite's: ``BROKEN_OFF`` fires before an exception leaves the run, whatever other handlers do."""

    BROKEN_OFF = "broken_off"


@dataclass(frozen=True)
class StepOptions:
    """How one optimizer step is made.

    Args:
        accumulation: batches per optimizer step.
        clip_norm: largest gradient norm; ``None`` clips nothing.
        precision: ``"fp32"`` or ``"bf16"`` (autocast, on a CPU too; needs no loss scaling).
        channels_last: memory format of network and views; faster for convolutions on a GPU.
        compile: ``torch.compile`` the encoders.
    """

    accumulation: int = 1
    clip_norm: float | None = None
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise TrainingError(f"precision {self.precision!r} is unknown; choose fp32 or bf16.")
        if self.accumulation < 1:
            raise TrainingError(f"accumulation must be 1 or more, not {self.accumulation}.")


class PretrainingTrainer(Trainer):
    """Trains a self-supervised method on batches of raw slices whose views are made on the model's device.

    After an iteration ``engine.state.output`` is ``[{"loss": ..., <scalars of the method>}]``, the form that MONAI's
    handlers expect with their default transforms, and ``engine.state.embedding`` the encoder's output for the first
    view (B, D). ``completed`` counts whole iterations; ``step_open`` is true while one (or an accumulated step) is
    unfinished, when the state cannot be saved. With more than one process (``torchrun``) the method is wrapped by
    ``ignite.distributed``.

    Args:
        device: where the method lives.
        max_epochs: epochs.
        train_data_loader: batches ``{"image", "size", "index"}`` as ``data.slices.collate_slices`` makes them.
        method: an ``SSLMethod``.
        optimizer: over the method's trainable parameters.
        views: module that makes the list of views: ``views(image, size, sample, epoch)``.
        options: how a step is made.
        train_handlers: MONAI, Ignite or our handlers.
        epoch_length: iterations per epoch; default the length of the loader.
        seed: of the random numbers that a method draws per image (masks).
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        method: SSLMethod,
        optimizer: Optimizer,
        views: Callable[..., list[torch.Tensor]],
        options: StepOptions | None = None,
        train_handlers: Sequence[Any] | None = None,
        epoch_length: int | None = None,
        seed: int = 0,
    ) -> None:
        self.options = options or StepOptions()
        self.seed = seed
        self.method = method
        self.optimizer = optimizer
        self.views = views
        self.stop_signal: int | None = None
        self.last_checkpoint: str | None = None
        self.completed = 0
        self.step_open = False
        # a loader without its own generator draws its workers' seed from the global one, once more after a resume
        if isinstance(train_data_loader, DataLoader) and train_data_loader.generator is None:
            train_data_loader.generator = torch.Generator().manual_seed(0)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=True,
            decollate=False,
            event_names=[PretrainingEvents],  # type: ignore[list-item]
        )
        self.network = self._prepared(method)
        self.add_event_handler(Events.EPOCH_STARTED, _set_position)
        self.handlers = list(train_handlers or ())
        self._register_handlers(self.handlers)

    def _prepared(self, method: SSLMethod) -> nn.Module:
        method.to(self.state.device)
        if self.options.channels_last:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.options.compile:
            for name, child in method.named_children():
                if name.endswith("encoder"):
                    child.compile()  # in place: the names in the state dict stay as they are
        if idist.get_world_size() > 1:
            return idist.auto_model(method, sync_bn=self.state.device.type == "cuda")
        return method

    @property
    def progress(self) -> float:
        """The fraction of training that has been completed before the current iteration."""
        return max(self.state.iteration - 1, 0) / (self.state.max_epochs * self.state.epoch_length)

    @property
    def accumulating(self) -> bool:
        """Whether gradients of the current iteration wait for the next one (never across an epoch's end)."""
        place = (self.state.iteration - 1) % self.state.epoch_length + 1
        return place != self.state.epoch_length and place % self.options.accumulation != 0

    def run(self) -> None:  # type: ignore[override]
        """Train; a run that a signal stopped ends the process with the shell's code for that signal.

        Raises:
            TrainingError: when going on would waste time: a loss that is not a number, a collapse, a full disk.
            SystemExit: 128 + signal after SIGTERM or SIGINT, when the state has been saved.
        """
        self.method.train()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            super().run()
        except Exception:
            self.fire_event(PretrainingEvents.BROKEN_OFF)
            raise
        if self.stop_signal is not None:
            raise SystemExit(128 + self.stop_signal)

    def _iteration(self, engine: Any, batchdata: dict[str, torch.Tensor]) -> Any:
        self.step_open = True
        views = self._views(batchdata)
        engine.fire_event(IterationEvents.INNER_ITERATION_STARTED)
        output = self._forward(views, batchdata["index"])
        loss = output.pop("loss")
        engine.state.embedding = output.pop("embedding", None)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        self._require_finite(float(loss.detach()), "loss", batchdata)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        self._backward(loss, batchdata)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        self.completed, self.step_open = engine.state.iteration, self.accumulating
        scalars = {name: value for name, value in output.items() if not torch.is_tensor(value) or value.ndim == 0}
        return [{"loss": loss.detach(), **scalars}]

    @torch.no_grad()
    def _views(self, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        device = self.state.device
        image, size, sample = (batch[key].to(device, non_blocking=True) for key in ("image", "size", "index"))
        views = self.views(image, size, sample, self.state.epoch - 1)
        if self.options.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        return views

    def _forward(self, views: list[torch.Tensor], sample: torch.Tensor) -> dict[str, Any]:
        keys = SampleKeys(self.seed, self.state.epoch - 1, sample)
        enabled = self.options.precision == "bf16"
        with torch.autocast(self.state.device.type, dtype=torch.bfloat16, enabled=enabled):
            return dict(self.network(views, self.progress, keys))

    def _backward(self, loss: torch.Tensor, batch: dict[str, torch.Tensor]) -> None:
        with self._gradients_kept_local():
            (loss / self._accumulated()).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if self.accumulating:
            return
        if self.options.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.method.parameters(), self.options.clip_norm)
            self._require_finite(float(norm), "gradient", batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(self.state.iteration / (self.state.max_epochs * self.state.epoch_length))

    def _gradients_kept_local(self) -> contextlib.AbstractContextManager:
        """Between processes, gradients need adding up only once per optimizer step."""
        if self.accumulating and isinstance(self.network, nn.parallel.DistributedDataParallel):
            return self.network.no_sync()
        return contextlib.nullcontext()

    def _accumulated(self) -> int:
        """How many batches share the optimizer step of this iteration (the last step of an epoch may have fewer)."""
        length, size = self.state.epoch_length, self.options.accumulation
        first = (self.state.iteration - 1) % length // size * size
        return min(size, length - first)

    def _require_finite(self, value: float, what: str, batch: dict[str, torch.Tensor]) -> None:
        if math.isfinite(value):
            return
        raise TrainingError(
            f"The {what} is {value} at step {self.state.iteration} (epoch {self.state.epoch}), for the store's slices "
            f"{batch['index'].tolist()}; look at these slices or lower --learning_rate, the last good state is "
            f"{self.last_checkpoint or 'the start: no checkpoint was written yet'}."
        )


def _set_position(engine: Any) -> None:
    """Tell the loader's sampler where this epoch starts: at its beginning, or in its middle after a resume."""
    sampler = getattr(engine.data_loader, "batch_sampler", None)
    if isinstance(sampler, ArithmeticBatchSampler):
        sampler.set_position(engine.state.epoch - 1, engine.state.iteration % engine.state.epoch_length)
