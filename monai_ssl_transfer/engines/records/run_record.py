"""What was run: the record that a run leaves in its folder, so that the folder alone tells everything."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events

from monai_ssl_transfer.data.store_summary import store_summary
from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.pretraining.faults import command, explained, last_good
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingEvents, PretrainingTrainer
from monai_ssl_transfer.engines.records.git_state import git_state
from monai_ssl_transfer.engines.records.run_config import config_text, resolved_values, running_parser
from monai_ssl_transfer.engines.records.versions import versions
from monai_ssl_transfer.errors import TrainingError, user_error_of

logger = logging.getLogger(__name__)

RECORD_FILE = "run.json"


class RunRecord:
    """Writes ``run.json`` and ``config.json`` into the folder of a run.

    ``run.json`` is a list of starts, because a run that is stopped goes on with the same command. Each start has its
    command line, the configuration's values as they were computed, versions, git commit, a summary of the data, number
    of processes, times and how it ended. ``config.json`` is the merged configuration (train.json, overlays and command
    line, not computed yet), which ``python -m monai.bundle run`` takes; a start with another configuration than the one
    before writes ``config_2.json`` and so on, and its entry names the file. A start that is refused, because its
    settings do not fit the checkpoints, writes nothing.

    Paths are those that the user typed; the record adds no names of machines, users or folders to them.

    Make it a handler after ``ExactResumeHandler``, so that it knows where the run goes on.

    Args:
        folder: the run's ``output_dir``.
        store: the data, for the summary.
        seconds: between two signs of life in the record.
    """

    def __init__(self, folder: str | Path, store: Any, seconds: float = 60.0) -> None:
        self.folder = Path(folder)
        self.store = store
        self.seconds = seconds
        self.parser = running_parser()
        self.starts: list[dict[str, Any]] = []
        self._running = False
        self._written = 0.0

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer (on the first process only)."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        engine.add_event_handler(Events.TERMINATE, self.terminated)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        engine.add_event_handler(PretrainingEvents.BROKEN_OFF, self.broken_off)

    def started(self, engine: PretrainingTrainer) -> None:
        """Add this start to the record.

        Raises:
            TrainingError: when the folder cannot be written.
        """
        if engine.state.epoch >= engine.state.max_epochs:
            return  # the run was finished already and nothing is run
        self.starts = _earlier_starts(self.folder / RECORD_FILE)
        try:
            self.starts.append(self._start(engine))
            self._write(engine)
        except OSError as error:
            raise TrainingError(
                f"The record of the run could not be written into {self.folder} ({error.strerror}); free space there "
                "or choose another --output_dir."
            ) from error
        self._running = True

    def iteration_completed(self, engine: PretrainingTrainer) -> None:
        """Give a sign of life from time to time."""
        if time.monotonic() - self._written >= self.seconds:
            self._update(engine)

    def epoch_completed(self, engine: PretrainingTrainer) -> None:
        """Say how far the run is."""
        self._update(engine)

    def completed(self, engine: PretrainingTrainer) -> None:
        """The run is finished, or another handler ended it before its time."""
        whole = engine.completed >= engine.state.max_epochs * engine.state.epoch_length
        self._end(engine, "finished" if whole else "stopped", None if whole else "a handler ended the run")

    def terminated(self, engine: PretrainingTrainer) -> None:
        """A signal stopped the run."""
        if engine.stop_signal is not None:
            self._end(engine, "stopped", f"signal {engine.stop_signal} ({signal.Signals(engine.stop_signal).name})")

    def broken_off(self, engine: PretrainingTrainer) -> None:
        """An exception, which the trainer is handling now, ends the run."""
        error = sys.exc_info()[1]
        known = user_error_of(error)
        if error is not None and known is None:
            told = explained(error, engine.state.iteration, last_good(engine.last_checkpoint))
            self._end(engine, "broken off", told or f"{type(error).__name__}: {error}".splitlines()[0])
        else:
            self._end(engine, "broken off", str(known))

    def _start(self, engine: PretrainingTrainer) -> dict[str, Any]:
        device = torch.device(engine.state.device)
        return {
            "started": _now(),
            "state": "running",
            "reason": None,
            "from_iteration": engine.state.iteration,
            "epochs": engine.state.max_epochs,
            "epoch_length": engine.state.epoch_length,
            "processes": idist.get_world_size(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "command": command(),
            "git": git_state(),
            "versions": versions(),
            "data": store_summary(self.store),
            "method": type(engine.method).__name__,
            "config": None if self.parser is None else self._config_file(config_text(self.parser)),
            "values": {} if self.parser is None else resolved_values(self.parser),
        }

    def _config_file(self, text: str) -> str:
        """The name of the file with this configuration, which is written unless the start before had the same."""
        names = [start["config"] for start in self.starts if start.get("config")]
        if names and _text(self.folder / names[-1]) == text:
            return str(names[-1])
        number = len(set(names)) + 1
        name = "config.json" if number == 1 else f"config_{number}.json"
        write_durably(self.folder / name, lambda file: file.write(text.encode()))
        return name

    def _end(self, engine: PretrainingTrainer, state: str, reason: str | None) -> None:
        if self._running:
            self._running = False
            self.starts[-1] |= {"state": state, "reason": reason, "ended": _now()}
            self._update(engine, ended=True)

    def _update(self, engine: PretrainingTrainer, ended: bool = False) -> None:
        if not self._running and not ended:
            return
        try:
            self._write(engine)
        except OSError as error:  # a full disk stops a run when a checkpoint cannot be written, not here
            logger.warning("%s could not be written (%s)", self.folder / RECORD_FILE, error.strerror)

    def _write(self, engine: PretrainingTrainer) -> None:
        self._written = time.monotonic()
        epoch = engine.completed // engine.state.epoch_length
        self.starts[-1] |= {"updated": _now(), "iteration": engine.completed, "epoch": epoch}
        text = json.dumps({"format": 1, "starts": self.starts}, indent=2) + "\n"
        write_durably(self.folder / RECORD_FILE, lambda file: file.write(text.encode()))


def _earlier_starts(path: Path) -> list[dict[str, Any]]:
    """The starts of the record before this one; one that still says "running" was killed without a chance to say so."""
    text = _text(path)
    if text is None:
        return []
    try:
        starts = list(json.loads(text)["starts"])
    except (ValueError, KeyError, TypeError):
        aside = path.with_suffix(".damaged.json")
        path.replace(aside)
        logger.warning("%s is damaged; it was moved to %s and a new record begins", path, aside)
        return []
    for start in starts:
        if start["state"] == "running":
            start |= {"state": "killed", "ended": start.get("updated")}
    return starts


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
