"""How far a training has come: written by the training process, read by the server for its clients."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import LabelError, TrainingError, user_error_of

logger = logging.getLogger(__name__)

PROGRESS = "progress.json"
LOCK = ".lock"
RUNNING = ("preparing", "training", "judging")
_WAIT, _PAUSE = 3.0, 0.1
_BETWEEN_WRITES, _BETWEEN_EPOCHS = 2.0, 0.5
_SHOWN = 100


class TrainingProgress:
    """MONAI handler for the trainer: say after each epoch how far it is, and keep that in `progress.json`.

    To be attached after the validation, so that an epoch's line has the metric of the same epoch.

    Args:
        folder: of the run.
        evaluator: the validation engine, whose key metric is told.
        server: id of the process that must stay this one's parent; None for any.
    """

    def __init__(self, folder: str | Path, evaluator: Engine, server: int | None = None) -> None:
        self.folder = Path(folder)
        self.evaluator = evaluator
        self.server = server
        self.losses: list[float] = []
        self.curve: list[dict[str, Any]] = []
        self.started = self.written = 0.0

    def attach(self, engine: Engine) -> None:
        """Register on the trainer (on the first process only)."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, self._begun)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def _begun(self, engine: Engine) -> None:
        self.started = time.time()
        self._write(engine)

    def _iteration(self, engine: Engine) -> None:
        refuse_without_server(self.server)
        output: Any = engine.state.output
        self.losses.append(output["loss"].item())
        if time.time() - self.written > _BETWEEN_WRITES:
            self._write(engine)

    def _epoch(self, engine: Engine) -> None:
        epoch, epochs = engine.state.epoch, engine.state.max_epochs or 0
        entry: dict[str, Any] = {"epoch": epoch, "loss": sum(self.losses) / max(1, len(self.losses))}
        name = getattr(self.evaluator.state, "key_metric_name", None)
        # MONAI's ValidationHandler lets the evaluator count in the trainer's epochs
        if self.evaluator.state.epoch == epoch and name in self.evaluator.state.metrics:
            entry |= {"metric": name, "value": _number(self.evaluator.state.metrics[name])}
        self.losses = []
        self.curve.append(entry)
        if epoch == epochs or time.time() - self.written > _BETWEEN_EPOCHS:
            self._write(engine)
        metric = f", {entry['metric']} {entry['value']}" if "metric" in entry else ""
        spent = time.time() - self.started
        left = timedelta(seconds=round(spent / epoch * (epochs - epoch)))
        logger.info("epoch %d of %d: loss %.4f%s; about %s left", epoch, epochs, entry["loss"], metric, left)

    def _write(self, engine: Engine) -> None:
        self.written = time.time()
        found = {"state": "training", "epoch": len(self.curve), "total_epochs": engine.state.max_epochs}
        found |= {"iteration": engine.state.iteration, "curve": self.curve}
        update_progress(self.folder, found)


def refuse_without_server(server: int | None) -> None:
    """End a training whose server is gone: nobody could see or stop it, and a new server could not train.

    Args:
        server: process id of the parent when the training began; None checks nothing.

    Raises:
        TrainingError: this process has another parent now.
    """
    if server is not None and os.getppid() != server:
        raise TrainingError("the server that began this training has ended, so it was stopped: train again.")


def _number(value: Any) -> float | None:
    return round(float(value), 6) if math.isfinite(float(value)) else None


def update_progress(folder: Path, changes: dict[str, Any]) -> None:
    """Change entries of a run's `progress.json`, atomically; the file is begun if it is not there.

    Raises:
        TrainingError: the folder cannot be written.
    """
    content = {**read_progress(folder), **changes, "updated": time.time()}
    text = json.dumps(content, indent=1) + "\n"
    try:
        write_durably(folder / PROGRESS, lambda file: file.write(text.encode()))
    except OSError as error:
        raise TrainingError(
            f"{folder / PROGRESS} could not be written ({error.strerror}): free space there and train again."
        ) from error


def read_progress(folder: Path) -> dict[str, Any]:
    """A run's `progress.json`; empty if there is none."""
    try:
        return dict(json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


@contextmanager
def recorded_failure(folder: Path) -> Iterator[None]:
    """Let a training that ends with an exception leave its sentence in `progress.json`."""
    try:
        yield
    except Exception as error:
        cause = user_error_of(error) or error
        ended = {"state": "failed", "message": str(cause) or type(cause).__name__, "ended": time.time()}
        if folder.is_dir():
            update_progress(folder, ended)
        raise


@contextmanager
def only_training(runs: Path, name: str) -> Iterator[None]:
    """Hold the right to train a bundle; it ends with the process, however that ends.

    Args:
        runs: folder of the bundle's runs.
        name: of the bundle.

    Raises:
        LabelError: another process has it.
        TrainingError: the folder cannot be written.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        file = os.open(runs / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise TrainingError(f"{runs} could not be written ({error.strerror}): give the folder's rights.") from error
    try:
        # the server takes the lock for an instant when it is asked for the progress
        patience = time.monotonic() + _WAIT
        while not _locked(file):
            if time.monotonic() > patience:
                raise busy(name)
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(file)


def busy(name: str) -> LabelError:
    """What a second training of a bundle is told."""
    return LabelError(f"a training of {name} is running: wait until it has ended, or stop it.", status=429)


def is_training(runs: Path) -> bool:
    """Whether a process holds the right to train this bundle."""
    if not (runs / LOCK).is_file():
        return False
    file = os.open(runs / LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        return not _locked(file)
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        # flock and not lockf: a record lock would be lost when the server's own process looks at the file
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def latest_statistics(runs: Path) -> dict[str, Any]:
    """What MONAI Label's clients show of a bundle's latest training, as they call it.

    Args:
        runs: folder of the bundle's runs.

    Returns:
        "state" (preparing, training, judging, done, failed or interrupted), "epoch" (finished ones), "total_epochs",
        "best_metric", the last epochs of "curve" and more; empty if there was no training.
    """
    folders = sorted(one for one in runs.glob("*/") if (one / PROGRESS).is_file())
    if not folders:
        return {}
    found = read_progress(folders[-1])
    if found.get("state") in RUNNING and not is_training(runs):
        found |= {"state": "interrupted", "message": "the training was stopped; the model in use is the one before it"}
        found.setdefault("ended", found.get("updated", 0.0))
    curve = found.get("curve", [])
    values = [one["value"] for one in curve if one.get("value") is not None]
    best = found.get("value_in_use", max(values, default=0.0))
    spent = str(timedelta(seconds=int(found.get("ended", time.time()) - found.get("start_ts", time.time()))))
    shown = {"curve": curve[-_SHOWN:], "best_metric": best, _clock(found): spent}
    return {"run": folders[-1].name, **found, **shown}


def _clock(found: dict[str, Any]) -> str:
    """Slicer and OHIF take a training that has a total time for ended."""
    return "current_time" if found.get("state") in RUNNING else "total_time"
