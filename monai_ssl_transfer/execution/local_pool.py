"""Jobs on this machine, each in a fresh process, as many at once as its cores and its memory allow."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue

from monai_ssl_transfer.execution.job_process import Ended, JobProcess
from monai_ssl_transfer.execution.jobs import Job, Outcome, with_different_ids
from monai_ssl_transfer.execution.machine import Room, Share, visible_gpus


class LocalExecutor:
    """Runs jobs on this machine; see ``Executor``.

    A job that does not fit beside the running ones lets later, smaller ones go first. All processes end with this one,
    however it ends.

    Args:
        workers: at most so many jobs at once; None for as many as there are cores.
        retries: how often a job is started again whose process was lost.
        log_dir: folder for ``<id>.log`` with the output of each job.
        cpus: cores that the jobs share; None for those of this machine (or control group).
        memory_gb: memory that they share, in 10^9 bytes; None for that of this machine (or control group).
    """

    def __init__(
        self,
        workers: int | None = None,
        retries: int = 1,
        log_dir: str | Path | None = None,
        cpus: float | None = None,
        memory_gb: float | None = None,
    ) -> None:
        self._workers, self._retries = workers, retries
        self._log_dir = None if log_dir is None else Path(log_dir).absolute()
        self._cpus, self._memory_gb = cpus, memory_gb

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Run jobs; see ``Executor.run``."""
        waiting = [(job, 1) for job in with_different_ids(jobs)]
        gpus = visible_gpus() if any(job.gpus > 0 for job, _ in waiting) else []
        room = Room(self._cpus, self._memory_gb, gpus, self._workers)
        running: dict[JobProcess, Share] = {}
        ended: SimpleQueue[tuple[JobProcess, Ended]] = SimpleQueue()
        try:
            for job, _ in list(waiting):
                refusal = room.refusal(job)
                if refusal:
                    waiting.remove((job, 1))
                    yield Outcome(job, None, refusal, "", 0, 0.0)
            while waiting or running:
                waiting = self._start(waiting, room, running, ended)
                process, end = ended.get()
                room.give_back(running.pop(process))
                if end.lost and process.attempt <= self._retries:
                    waiting.insert(0, (process.job, process.attempt + 1))
                else:
                    yield end.outcome(process.job, process.attempt)
        finally:
            for process in running:
                process.kill()

    def _start(
        self,
        waiting: list[tuple[Job, int]],
        room: Room,
        running: dict[JobProcess, Share],
        ended: SimpleQueue[tuple[JobProcess, Ended]],
    ) -> list[tuple[Job, int]]:
        """Start what there is room for; return what still waits."""
        left = []
        for job, attempt in waiting:
            share = room.take(job)
            if share is None:
                left.append((job, attempt))
                continue
            process = JobProcess(job, attempt, self._log_dir, share.devices)
            running[process] = share
            threading.Thread(target=lambda one=process: ended.put((one, one.wait())), daemon=True).start()
        return left
