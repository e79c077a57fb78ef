"""The trainer of self-supervised pretraining: MONAI's Trainer around one protocol (``methods.base.SSLMethod``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import EventEnum, Events
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from monai_ssl_transfer.engines.pretraining.faults import explained, last_good
from monai_ssl_transfer.engines.pretraining.nonfinite import FiniteGuard
from monai_ssl_transfer.engines.pretraining.step import StepGradients, StepOptions
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod
from monai_ssl_transfer.methods.batch_norm import synchronise_batch_norm
from monai_ssl_transfer.methods.distributed import between_processes
from monai_ssl_transfer.networks.compiling import compile_encoder

__all__ = ["PretrainingEvents", "PretrainingTrainer", "StepOptions", "batch_keys"]


class PretrainingEvents(EventEnum):
    """Events beside Ignite's: ``BROKEN_OFF`` fires before an exception leaves the run, whatever other handlers do."""

    BROKEN_OFF = "broken_off"


class PretrainingTrainer(Trainer):
    """Trains a self-supervised method on batches of raw images whose views are made on the model's device.

    One iteration is one optimizer step, whatever the number of processes and of pieces (``StepOptions.accumulation``).
    After it ``engine.state.output`` is ``[{"loss": ..., <scalars of the method>}]`` averaged over the processes, the
    form that MONAI's handlers expect with their default transforms, and ``engine.state.embedding`` the encoder's output
    for the first view of this process's images (B, D). After a step that was skipped because its loss or gradient is
    not finite both are those of the step before, and ``engine.state.metrics["skipped"]`` counts it.

    ``completed`` counts whole iterations; ``step_open`` is true inside of one, when the state cannot be saved.
    ``epoch_offset`` (0) is added to the epoch in the order of the data and in all random numbers: a run that goes on
    from another one's end sets it, and ``continued_from`` to what is known of that run. ``step_skipped`` tells whether
    the last step was skipped.

    Args:
        device: where the method lives.
        max_epochs: epochs.
        train_data_loader: batches ``{"image", "size", "index"}`` as ``data.slices.collate_slices`` makes them. They may
            be lists of such tensors (several stores); ``"key"`` then numbers the images over all of them.
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
        views: Callable[..., list[Tensor]],
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
        self.epoch_offset = 0
        self.continued_from: dict[str, Any] | None = None
        self.step_skipped = False
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
        self.gradients = StepGradients(self._prepared(method), method, self.options)
        self.state.embedding = None
        dataset = getattr(train_data_loader, "dataset", None)
        self.guard = FiniteGuard(method, self.options.on_nonfinite == "skip", getattr(dataset, "place_of", None))
        self.add_event_handler(Events.EPOCH_STARTED, _set_position)
        self.handlers = list(train_handlers or ())
        self._register_handlers(self.handlers)

    def _prepared(self, method: SSLMethod) -> nn.Module:
        device, several = self.state.device, idist.get_world_size() > 1
        method.to(device)
        if self.options.channels_last:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if several and method.synchronised_batch_norm:
            synchronise_batch_norm(method, device)
        if self.options.compile:
            for name, child in method.named_children():
                if name.endswith("encoder"):
                    compile_encoder(child)
        if not several:
            return method
        return between_processes(method, device)

    @property
    def progress(self) -> float:
        """The fraction of training that has been completed before the current iteration."""
        return max(self.state.iteration - 1, 0) / (self.state.max_epochs * self.state.epoch_length)

    @property
    def data_epoch(self) -> int:
        """The epoch from 0 that decides the order of the data and all random numbers."""
        return self.state.epoch - 1 + self.epoch_offset

    def run(self) -> None:  # type: ignore[override]
        """Train; a run that a signal stopped ends the process with the shell's code for that signal.

        Raises:
            TrainingError: when going on would waste time or is impossible: a loss that is not a number, a collapse, a
                full disk, full memory, a process that was lost.
            SystemExit: 128 + signal after SIGTERM or SIGINT, when the state has been saved.
        """
        self.method.train()
        if (rank := idist.get_rank()) > 0:
            # weights are alike by one seed; stochastic depth must not be, and states that are restored come after this
            torch.manual_seed(self.seed + rank)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            super().run()
        except Exception as error:
            self.fire_event(PretrainingEvents.BROKEN_OFF)
            sentence = explained(error, self.state.iteration, last_good(self.last_checkpoint))
            if sentence is not None:
                raise TrainingError(sentence) from error
            raise
        if self.stop_signal is not None:
            raise SystemExit(128 + self.stop_signal)

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> Any:
        self.step_open = True
        views = self._views(batchdata)
        engine.fire_event(IterationEvents.INNER_ITERATION_STARTED)
        self.guard.remember()
        keys = batch_keys(batchdata)
        output = self.gradients(views, self.progress, SampleKeys(self.seed, self.data_epoch, keys))
        embedding = output.pop("embedding", None)
        for event in (
            IterationEvents.FORWARD_COMPLETED,
            IterationEvents.LOSS_COMPLETED,
            IterationEvents.BACKWARD_COMPLETED,
        ):
            engine.fire_event(event)
        self.method.before_step(self.progress)
        scalars = _mean_over_processes({name: value for name, value in output.items() if _is_scalar(value)})
        made = self._update(scalars["loss"], output["loss"], keys)
        self.step_skipped = not made
        if made:
            engine.state.embedding = embedding
        if self.guard.skip:
            engine.state.metrics["skipped"] = self.guard.skipped
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        self.completed, self.step_open = engine.state.iteration, False
        return [scalars] if made or engine.state.output is None else engine.state.output

    @torch.no_grad()
    def _views(self, batch: dict[str, Any]) -> list[Tensor]:
        image, size, sample = (_moved(batch[key], self.state.device) for key in ("image", "size", "index"))
        views = self.views(image, size, sample, self.data_epoch)
        if self.options.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        return views

    def _update(self, loss: Tensor, own_loss: Tensor, keys: Tensor) -> bool:
        """Make the step, unless loss or gradient is not finite; whether it was made."""
        state = self.state
        parameters = [parameter for parameter in self.method.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
        place = f"step {state.iteration} (epoch {state.epoch})"
        finite = self.guard.accepts(loss, norm, own_loss, place, keys, self.last_checkpoint)
        if finite:
            if self.options.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(parameters, self.options.clip_norm, norm)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if finite:
            self.method.after_step(state.iteration / (state.max_epochs * state.epoch_length))
        return finite


def batch_keys(batch: dict[str, Any]) -> Tensor:
    """The number of each image of a batch in the data set, over all stores where there are several."""
    return batch["key"] if "key" in batch else batch["index"]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, (list, tuple)):
        return [one.to(device, non_blocking=True) for one in value]
    return value.to(device, non_blocking=True)


def _is_scalar(value: Any) -> bool:
    return not torch.is_tensor(value) or value.ndim == 0


def _mean_over_processes(scalars: dict[str, Any]) -> dict[str, Any]:
    if idist.get_world_size() == 1:
        return scalars
    device = scalars["loss"].device
    values = torch.stack([torch.as_tensor(value, dtype=torch.float32).to(device) for value in scalars.values()])
    torch.distributed.all_reduce(values)
    return dict(zip(scalars, values / idist.get_world_size(), strict=True))


def _set_position(engine: PretrainingTrainer) -> None:
    """Tell the loader's sampler where this epoch starts: at its beginning, or in its middle after a resume."""
    sampler = getattr(engine.data_loader, "batch_sampler", None)
    if sampler is not None and hasattr(sampler, "set_position"):
        sampler.set_position(engine.data_epoch, engine.state.iteration % engine.state.epoch_length)
