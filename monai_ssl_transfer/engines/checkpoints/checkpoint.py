"""Exact resume: the same command goes on where the last one stood, with bitwise the same result."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events

from monai_ssl_transfer.engines.checkpoints.files import (
    checkpoint_path,
    remove_leftovers,
    set_aside,
    write_checkpoint,
)
from monai_ssl_transfer.engines.checkpoints.random_state import random_states, set_random_states
from monai_ssl_transfer.engines.checkpoints.shared import read_same_checkpoint
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingEvents, PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

_FORMAT = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class ResumeOptions:
    """When to save and whether to go on.

    Args:
        checkpoint_every: iterations between two checkpoints; one is also written at every epoch's end.
        resume: go on from the newest whole checkpoint; ``False`` sets older checkpoints aside and starts anew.
        keep: how many checkpoints stay on disk.
    """

    checkpoint_every: int = 1000
    resume: bool = True
    keep: int = 2


class ExactResumeHandler:
    """Saves and restores everything that decides how training goes on.

    That is the method (momentum encoder, queue and centre included), the optimizer, the iteration (from which the order
    of the data, the views' randomness and all schedules follow), the states of handlers and all random states. Saved
    every ``checkpoint_every`` iterations, at the end of an epoch, after SIGTERM or SIGINT and when an exception stops
    the run between two steps. Make it the first handler of the trainer.

    Args:
        folder: where the checkpoints lie, for example ``<output_dir>/checkpoints``.
        fingerprint: what must be the same for a run to go on: names to plain values.
        options: when to save and whether to go on.
        changeable: settings that may change when the run goes on; the log says so.
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: Mapping[str, Any],
        options: ResumeOptions | None = None,
        changeable: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.fingerprint = {name: str(value) for name, value in fingerprint.items()}
        self.options = options or ResumeOptions()
        self.changeable = {name: str(value) for name, value in (changeable or {}).items()}
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}
        self._saved = -1

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.release)
        engine.add_event_handler(Events.TERMINATE, self.release)
        engine.add_event_handler(PretrainingEvents.BROKEN_OFF, self.broken_off)

    def start(self, engine: PretrainingTrainer) -> None:
        """Restore the newest whole checkpoint, if there is one, and listen to signals."""
        self.fingerprint |= {"epochs": str(engine.state.max_epochs), "iterations": str(engine.state.epoch_length)}
        if idist.get_rank() == 0:
            remove_leftovers(self.folder)
            if not self.options.resume and (aside := set_aside(self.folder)):
                logger.info("starting anew; the older checkpoints were moved to %s", aside)
        idist.barrier()
        found = read_same_checkpoint(self.folder)
        if found is not None:
            self.restore(engine, *found)
        # attached only now, so that it comes after the epoch's other handlers and saves what they left
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        self._listen()

    def restore(self, engine: PretrainingTrainer, path: Path, content: dict[str, Any]) -> None:
        """Put a checkpoint's state into the trainer.

        Raises:
            TrainingError: when the checkpoint belongs to a run with other settings.
        """
        self._require_same_run(path, content)
        self._note_changes(content.get("changeable", {}))
        try:
            engine.method.load_state_dict(content["method"])
            engine.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            difference = str(error).splitlines()[-1].strip()
            raise TrainingError(
                f"{path} does not fit this run: its method or optimizer has other tensors ({difference}); "
                "choose another --output_dir, or start anew in this one with --resume False."
            ) from error
        for name, handler in _stateful(engine).items():
            if name in content["handlers"]:
                handler.load_state_dict(content["handlers"][name])
        engine.state.iteration = engine.completed = self._saved = content["iteration"]
        engine.state.epoch = content["iteration"] // engine.state.epoch_length
        engine.guard.skipped = content.get("skipped", 0)
        engine.last_checkpoint = str(path)
        states = content["random"]
        set_random_states(states[idist.get_rank() if idist.get_rank() < len(states) else 0])
        if engine.state.epoch >= engine.state.max_epochs:
            logger.info("this run is finished (%s); start anew with --resume False or another --output_dir", path)
        else:
            logger.info("going on after step %d of epoch %d (%s)", self._saved, engine.state.epoch + 1, path)

    def save(self, engine: PretrainingTrainer) -> None:
        """Write a checkpoint of the last completed iteration, once."""
        if engine.completed == self._saved:
            return
        states = [random_states()]
        if idist.get_world_size() > 1:
            states = _gathered(states[0])
        path = checkpoint_path(self.folder, engine.completed)
        if idist.get_rank() == 0:
            content = {
                "format": _FORMAT,
                "fingerprint": self.fingerprint,
                "changeable": self.changeable,
                "iteration": engine.completed,
                "skipped": engine.guard.skipped,
                "method": engine.method.state_dict(),
                "optimizer": engine.optimizer.state_dict(),
                "handlers": {name: handler.state_dict() for name, handler in _stateful(engine).items()},
                "random": states,
            }
            write_checkpoint(path, content, self.options.keep)
        self._saved, engine.last_checkpoint = engine.completed, str(path)

    def iteration_completed(self, engine: PretrainingTrainer) -> None:
        """Save when it is time to or when a signal asks to stop.

        The last iteration of an epoch is left to ``epoch_completed``, so that the epoch's other handlers run first.
        """
        if engine.state.iteration % engine.state.epoch_length == 0:
            return
        every = self.options.checkpoint_every
        if not self._stopped(engine) and engine.state.iteration // every > max(self._saved, 0) // every:
            self.save(engine)

    def epoch_completed(self, engine: PretrainingTrainer) -> None:
        """Save at the end of an epoch."""
        self.save(engine)
        self._stopped(engine)

    def _stopped(self, engine: PretrainingTrainer) -> bool:
        number = _any_rank(self._signal, engine)
        if number is None:
            return False
        self.save(engine)
        logger.info("stopped by signal %d; the same command goes on from %s", number, engine.last_checkpoint)
        engine.stop_signal = number
        engine.terminate(skip_completed=True)
        return True

    def broken_off(self, engine: PretrainingTrainer) -> None:
        """Save what is whole when an exception ends the run; an unfinished step is left out."""
        self.release(engine)
        if engine.step_open or idist.get_world_size() > 1 or engine.completed == 0:
            return
        try:
            self.save(engine)
        except TrainingError as error:  # the exception under way says more than this one
            logger.error("%s", error)

    def release(self, _: PretrainingTrainer) -> None:
        """Give the signals back to whom they belonged."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt  # asked twice: do not wait for the step's end
        self._signal = number

    def _note_changes(self, saved: Mapping[str, str]) -> None:
        for name, value in self.changeable.items():
            if name in saved and saved[name] != value:
                logger.info("going on with %s %s, which was %s before", name, value, saved[name])

    def _require_same_run(self, path: Path, content: dict[str, Any]) -> None:
        saved = content["fingerprint"]
        names = sorted(saved.keys() | self.fingerprint.keys())
        changed = [name for name in names if saved.get(name) != self.fingerprint.get(name)]
        if content["format"] != _FORMAT or changed:
            differences = ", ".join(
                f"{name} {_difference(saved.get(name), self.fingerprint.get(name))}" for name in changed
            )
            raise TrainingError(
                f"{path} belongs to a run with other settings ({differences or 'format'}); choose another "
                f"--output_dir, with --continued_run {self.folder.parent} to go on from what was learnt, or start anew "
                "in this one with --resume False."
            )


def _difference(saved: str | None, own: str | None) -> str:
    """Two values, without the lines that long ones (the text of a method) have in common."""
    before, after = str(saved), str(own)
    if "\n" in before and "\n" in after:
        old, new = before.splitlines(), after.splitlines()
        pairs = [(one.strip(), other.strip()) for one, other in zip(old, new, strict=False) if one != other]
        before, after = pairs[0] if pairs else (f"{len(old)} lines", f"{len(new)} lines")
    return f"{before} -> {after}"


def _stateful(engine: PretrainingTrainer) -> dict[str, Any]:
    """The trainer's handlers that have a state, by the name of their class."""
    # both methods: MONAI's CheckpointSaver has load_state_dict alone
    both = [one for one in engine.handlers if hasattr(one, "state_dict") and hasattr(one, "load_state_dict")]
    return {type(one).__name__: one for one in both}


def _gathered(state: dict[str, Any]) -> list[dict[str, Any]]:
    gathered: list[Any] = [None] * idist.get_world_size()
    torch.distributed.all_gather_object(gathered, state)
    return gathered


def _any_rank(number: int | None, engine: PretrainingTrainer) -> int | None:
    """The signal that any process got; all must stop after the same step or the others would wait for ever."""
    if idist.get_world_size() == 1:
        return number
    highest = int(idist.all_reduce(torch.tensor(number or 0, device=engine.state.device), "MAX"))
    return highest or None
