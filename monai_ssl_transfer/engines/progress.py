"""What the user sees and keeps while pretraining runs: a progress bar or log lines, and one record per epoch."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events
from tqdm import tqdm

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.pretraining import PretrainingTrainer
from monai_ssl_transfer.engines.schedules import rates

logger = logging.getLogger(__name__)


class Stopwatch:
    """Images, seconds and seconds of waiting for data since it was reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.images = 0
        self.waited = self._asked = 0.0
        self.start = time.perf_counter()

    def asked(self) -> None:
        """The trainer asks for a batch."""
        self._asked = time.perf_counter()

    def got(self, images: int) -> None:
        """The batch is there."""
        self.waited += time.perf_counter() - self._asked
        self.images += images

    def rate(self) -> float:
        """Images per second."""
        return self.images / max(time.perf_counter() - self.start, 1e-9)

    def wait_share(self) -> float:
        """Fraction of the time spent waiting for data."""
        return self.waited / max(time.perf_counter() - self.start, 1e-9)


class PretrainingProgress:
    """A progress bar with loss, images/s, time left and the share of time spent waiting for data.

    Where the output is no terminal, a plain log line appears every ``seconds`` instead.

    Args:
        seconds: seconds between two updates.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.watch = Stopwatch()
        self.bar: Any = None
        self._shown = 0.0

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer (on the first process only)."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.watch.asked)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.batch_here)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        for event in (Events.EPOCH_COMPLETED, Events.TERMINATE, Events.COMPLETED):
            engine.add_event_handler(event, self.close)

    def epoch_started(self, engine: PretrainingTrainer) -> None:
        """Open the epoch's bar, at the place where a resumed epoch goes on."""
        self.watch.reset()
        self._shown = time.perf_counter()
        if sys.stderr.isatty():
            done = engine.state.iteration % engine.state.epoch_length
            title = f"epoch {engine.state.epoch}/{engine.state.max_epochs}"
            self.bar = tqdm(total=engine.state.epoch_length, initial=done, desc=title, unit="step", leave=True)

    def batch_here(self, engine: PretrainingTrainer) -> None:
        """Count a batch."""
        self.watch.got(len(engine.state.batch["index"]))

    def iteration_completed(self, engine: PretrainingTrainer) -> None:
        """Move the bar or write a line."""
        now = time.perf_counter()
        due = now - self._shown >= (0.5 if self.bar is not None else self.seconds)
        if self.bar is not None:
            self.bar.update(1)
        if not due:
            return
        self._shown = now
        shown = self._figures(engine)
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
        else:
            self._line(engine, shown)

    def close(self, _: PretrainingTrainer) -> None:
        """End the epoch's bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _figures(self, engine: PretrainingTrainer) -> dict[str, str]:
        return {
            "loss": f"{float(engine.state.output[0]['loss']):.4f}",
            "images/s": f"{self.watch.rate() * idist.get_world_size():.1f}",
            "data wait": f"{100 * self.watch.wait_share():.0f}%",
        }

    def _line(self, engine: PretrainingTrainer, figures: dict[str, str]) -> None:
        length = engine.state.epoch_length
        place = engine.state.iteration % length or length
        left = (engine.state.max_epochs * length - engine.state.iteration) * len(engine.state.batch["index"])
        seconds = left / max(self.watch.rate(), 1e-9)
        text = ", ".join(f"{name} {value}" for name, value in figures.items())
        logger.info(
            "epoch %d/%d, step %d/%d: %s, %d:%02d:%02d left",
            engine.state.epoch,
            engine.state.max_epochs,
            place,
            length,
            text,
            seconds // 3600,
            seconds % 3600 // 60,
            seconds % 60,
        )


class EpochRecords:
    """One JSON line per epoch in ``metrics.jsonl``: mean loss, learning rate, speed, kNN, embedding health.

    Args:
        folder: the run's ``output_dir``.
        optimizer: its rates are written too.
    """

    def __init__(self, folder: str | Path, optimizer: Any) -> None:
        self.path = Path(folder) / "metrics.jsonl"
        self.optimizer = optimizer
        self.watch = Stopwatch()
        self.sums: dict[str, float] = {}
        self.count = 0

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer; make it come after the handlers whose metrics shall be in the record."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_STARTED, self.watch.reset)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.watch.asked)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.batch_here)
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

    def batch_here(self, engine: PretrainingTrainer) -> None:
        """Count a batch."""
        self.watch.got(len(engine.state.batch["index"]))

    def iteration_completed(self, engine: PretrainingTrainer) -> None:
        """Add up the scalars of this iteration."""
        for name, value in engine.state.output[0].items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.count += 1

    def epoch_completed(self, engine: PretrainingTrainer) -> None:
        """Append the record."""
        record: dict[str, Any] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        record |= {name: value / max(self.count, 1) for name, value in self.sums.items()}
        record |= dict(rates(self.optimizer))
        record |= {"images_per_second": self.watch.rate() * idist.get_world_size(), "wait": self.watch.wait_share()}
        record |= {name: float(value) for name, value in engine.state.metrics.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        logger.info("%s", ", ".join(f"{name} {value:.5g}" for name, value in record.items()))
        self.sums, self.count = {}, 0


def _lines(path: Path) -> Iterable[str]:
    """Whole lines of a file whose last one a kill may have cut."""
    return [line for line in path.read_text().splitlines() if line.endswith("}")]
