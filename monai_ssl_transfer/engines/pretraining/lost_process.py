"""A time limit on steps, for runs of several processes: waiting for a process that is lost must not last for ever."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events

from monai_ssl_transfer.engines.pretraining.faults import last_good, lost_process
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingEvents, PretrainingTrainer

logger = logging.getLogger(__name__)

MARGIN = 60.0
"""Seconds by which the collectives' own time limit is longer, so that this one speaks first."""
EVALUATION = timedelta(days=1)
"""Longest time that the other processes wait for the first one's evaluation."""


class LostProcessWatch:
    """Ends this process, with a sentence, when a step takes too long or a signal to stop cannot be obeyed.

    gloo tells of a lost connection by an exception, which the trainer explains. But it waits for a process that hangs,
    and NCCL waits on the GPU for any lost one, while Python runs no signal handlers; at its own time limit NCCL aborts
    the process without a word for the user. So a thread looks at the clock, and at the signals by their number alone
    (``signal.set_wakeup_fd``).

    Args:
        seconds: longest time for one step; the views and a compilation count. The first process's evaluation between
            two epochs may take longer: the others wait for it, up to a day.
        grace: seconds that a step may go on after SIGTERM or SIGINT; torchrun kills after 30.
    """

    def __init__(self, seconds: float, grace: float = 20.0) -> None:
        self.seconds = seconds
        self.grace = grace
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._patient: Any = None

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer, if there are other processes."""
        if idist.get_world_size() == 1:
            return
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.wait_for_all)
        for event in (Events.COMPLETED, Events.TERMINATE, PretrainingEvents.BROKEN_OFF):
            engine.add_event_handler(event, self.stop)

    def start(self, engine: PretrainingTrainer) -> None:
        """Start the thread."""
        if self._patient is None:
            self._patient = torch.distributed.new_group(backend="gloo", timeout=EVALUATION)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        previous = -1
        if threading.current_thread() is threading.main_thread():
            previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._pipe = (reading, writing, previous)
        self._ended.clear()
        self._thread = threading.Thread(target=self._watch, args=(engine, reading), daemon=True)
        self._thread.start()

    def wait_for_all(self, _: PretrainingTrainer) -> None:
        """Wait for the process that evaluates, in a group whose time limit is not that of a step.

        gloo, whatever the backend of the run: it notices at once when a process is lost. Attached before the handler
        of the checkpoints, whose own exchange between the processes has the step's limit.
        """
        torch.distributed.barrier(group=self._patient)

    def stop(self, _: PretrainingTrainer) -> None:
        """End the thread."""
        if self._thread is None or self._ended.is_set():
            return
        self._ended.set()
        reading, writing, previous = self._pipe
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(previous)
        with contextlib.suppress(BlockingIOError):
            os.write(writing, b"\0")
        self._thread.join()
        os.close(reading)
        os.close(writing)

    def _watch(self, engine: PretrainingTrainer, reading: int) -> None:
        step, since, asked, number = -1, time.monotonic(), 0.0, 0
        while not self._ended.is_set():
            ready, _, _ = select.select([reading], [], [], min(1.0, self.seconds / 4))
            now = time.monotonic()
            numbers = [one for one in os.read(reading, 64) if one in (signal.SIGTERM, signal.SIGINT)] if ready else []
            if numbers and not number:
                asked, number = now, numbers[0]
            if not engine.step_open or engine.state.iteration != step:
                step, since = engine.state.iteration, now
            elif now - since > self.seconds:
                _give_up(engine, 1)
            elif number and now - max(asked, since) > self.grace:
                _give_up(engine, 128 + number)


def _give_up(engine: PretrainingTrainer, code: int) -> None:
    """Say what is known and leave: the main thread waits in a call that cannot be broken off."""
    logger.error("%s", lost_process(engine.state.iteration, last_good(engine.last_checkpoint)))
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
