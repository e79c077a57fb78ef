"""How fast a run goes: images per second, waiting for data, and the time that is left."""

from __future__ import annotations

import time

import ignite.distributed as idist
from ignite.engine import Events

from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer, batch_keys


class Pace:
    """Measures an epoch's images and waiting, and the whole run's progress, on this process."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._images = 0
        self._waited = self._asked = 0.0
        self._start = time.perf_counter()

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.asked)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.got)

    def epoch_started(self, engine: PretrainingTrainer) -> None:
        """Measure anew; the first epoch of a start is also where the time left is counted from."""
        self._images, self._waited = 0, 0.0
        self._start = time.perf_counter()
        if self._began is None:
            self._began = self._start, engine.state.iteration

    def asked(self, _: PretrainingTrainer) -> None:
        """The trainer asks for a batch."""
        self._asked = time.perf_counter()

    def got(self, engine: PretrainingTrainer) -> None:
        """The batch is there."""
        self._waited += time.perf_counter() - self._asked
        self._images += len(batch_keys(engine.state.batch))

    def images_per_second(self) -> float:
        """Images per second in this epoch, of all processes together."""
        return self._images * idist.get_world_size() / self.seconds()

    def wait_share(self) -> float:
        """Fraction of this epoch's time spent waiting for data."""
        return self._waited / self.seconds()

    def seconds(self) -> float:
        """Seconds since the epoch started."""
        return max(time.perf_counter() - self._start, 1e-9)

    def seconds_left(self, engine: PretrainingTrainer) -> float:
        """Seconds to the end of the whole run, at the pace since its start; kNN and checkpoints are in it."""
        if self._began is None:
            return float("nan")
        start, first = self._began
        missing = engine.state.max_epochs * engine.state.epoch_length - engine.state.iteration
        return missing * (time.perf_counter() - start) / max(engine.state.iteration - first, 1)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``12:05:00``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
