"""What the user sees and keeps while pretraining runs: a progress bar or log lines, and one record per epoch."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from torch.optim import Optimizer
from tqdm import tqdm

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.pretraining.pace import Pace
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.engines.records.figures import as_text, current_record, figures

logger = logging.getLogger(__name__)

BAR_SECONDS = 0.5  # between two updates of the figures beside a bar


class PretrainingProgress:
    """A progress bar with the figures of the step, the speed and the time left of the whole run.

    Where the output is no terminal, a plain log line appears every ``seconds`` instead.

    Args:
        seconds: seconds between two updates.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.pace = Pace()
        self.bar: Any = None
        self._known: dict[str, float] = {}
        self._shown = 0.0

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer (on the first process only)."""
        if idist.get_rank() > 0:
            return
        self.pace.attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        for event in (Events.EPOCH_COMPLETED, Events.TERMINATE, Events.COMPLETED):
            engine.add_event_handler(event, self.close)

    def epoch_started(self, engine: PretrainingTrainer) -> None:
        """Open the epoch's bar, at the place where a resumed epoch goes on."""
        self._known = dict(engine.state.metrics)  # shown until they are measured again
        self._shown = time.perf_counter()
        if sys.stderr.isatty():
            done = engine.state.iteration % engine.state.epoch_length
            title = f"epoch {engine.state.epoch}/{engine.state.max_epochs}"
            # tqdm's own estimate is that of the epoch; the run's is among the figures
            form = "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt}{postfix}"
            length = engine.state.epoch_length
            self.bar = tqdm(total=length, initial=done, desc=title, unit="step", leave=True, bar_format=form)

    def iteration_completed(self, engine: PretrainingTrainer) -> None:
        """Move the bar or write a line."""
        now = time.perf_counter()
        due = now - self._shown >= (BAR_SECONDS if self.bar is not None else self.seconds)
        if self.bar is not None:
            self.bar.update(1)
        if not due:
            return
        self._shown = now
        record = self._known | current_record(engine, engine.optimizer, self.pace, engine.state.output[0])
        shown = figures(record)
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
        else:
            self._line(engine, shown)

    def close(self, _: PretrainingTrainer) -> None:
        """End the epoch's bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _line(self, engine: PretrainingTrainer, shown: dict[str, str]) -> None:
        state, length = engine.state, engine.state.epoch_length
        place = state.iteration % length or length
        where = f"epoch {state.epoch}/{state.max_epochs}, step {place}/{length}"
        logger.info("%s: %s", where, as_text(shown))


class EpochRecords:
    """One JSON line per epoch in ``metrics.jsonl``.

    A line holds the means of the epoch's loss and of the method's other scalars (momentum, temperature), the learning
    rate and weight decay at its end, the last measured embedding spread and effective rank, kNN accuracy where it was
    measured in that epoch, images/s, the share of waiting for data, steps skipped so far, seconds of the epoch, seconds
    left of the run, and the time (UTC).

    Args:
        folder: the run's ``output_dir``.
        optimizer: its rates are written too.
    """

    def __init__(self, folder: str | Path, optimizer: Optimizer) -> None:
        self.path = Path(folder) / "metrics.jsonl"
        self.optimizer = optimizer
        self.pace = Pace()
        self.sums: dict[str, float] = {}
        self.count = 0

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer; make it come after the handlers whose metrics shall be in the record."""
        if idist.get_rank() > 0:
            return
        self.pace.attach(engine)
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def state_dict(self) -> dict[str, Any]:
        """Sums of the epoch under way."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on summing."""
        self.sums, self.count = dict(state["sums"]), int(state["count"])

    def started(self, engine: PretrainingTrainer) -> None:
        """Drop the records of epochs that will be run again."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in _lines(self.path) if json.loads(line)["epoch"] <= engine.state.epoch]
            text = "".join(f"{line}\n" for line in kept)
            write_durably(self.path, lambda file: file.write(text.encode()))

    def epoch_started(self, engine: PretrainingTrainer) -> None:
        """Forget the metrics of the epoch before: one that is not measured again is not repeated."""
        engine.state.metrics.clear()

    def iteration_completed(self, engine: PretrainingTrainer) -> None:
        """Add up the scalars of this iteration, unless it was skipped."""
        if engine.step_skipped:
            return  # the output is that of the step before, which was counted
        scalars = {name: float(value) for name, value in engine.state.output[0].items()}
        for name, value in scalars.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def epoch_completed(self, engine: PretrainingTrainer) -> None:
        """Append the record."""
        means = {name: value / max(self.count, 1) for name, value in self.sums.items()}
        values = current_record(engine, self.optimizer, self.pace, means)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        # JSON has no NaN: what is none is left out
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        record = {"epoch": engine.state.epoch, "iteration": engine.state.iteration, "time": now} | finite
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        logger.info("epoch %d/%d: %s", engine.state.epoch, engine.state.max_epochs, as_text(figures(values)))
        self.sums, self.count = {}, 0
        # MONAI's TensorBoardStatsHandler writes what it finds here; it has the loss of every step already
        engine.state.metrics |= {name: value for name, value in finite.items() if name != "loss"}


def _lines(path: Path) -> Iterable[str]:
    """Whole lines of a file whose last one a kill may have cut."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
