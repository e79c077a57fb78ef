"""What is to be done, what came of it, and who does it: the same for one machine and for a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A function call in a process of its own.

    Args:
        id: name; unique within a run, without a slash, since its log is named by it.
        function: ``"package.module:name"``; takes one dict and returns one dict that JSON can hold.
        arguments: that dict; JSON must be able to hold it.
        cpus: cores; also the number of threads of OpenMP and of torch, at least one.
        gpus: number of GPUs, or a part of one below 1; a job with 0 sees none.
        memory_gb: in 10^9 bytes; 0 when it is not known.

    Raises:
        ValueError: a field is not like that.
    """

    id: str
    function: str
    arguments: dict[str, Any] = field(hash=False)
    cpus: float = 1
    gpus: float = 0
    memory_gb: float = 0

    def __post_init__(self) -> None:
        if not self.id or "/" in self.id or "\0" in self.id:
            raise ValueError(f"{self.id!r} cannot name a job: its log file is named so")
        if self.function.count(":") != 1 or not all(self.function.split(":")):
            raise ValueError(f"job {self.id}: {self.function!r} is not of the form package.module:name")
        if min(self.cpus, self.gpus, self.memory_gb) < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"job {self.id}: cpus, gpus and memory_gb are not negative, and gpus above 1 are whole")
        try:
            json.dumps(self.arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(f"job {self.id}: its arguments cannot be written as JSON: {error}") from error


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Args:
        job: the job.
        value: what its function returned, None when it failed.
        error: one sentence, empty when all is well.
        traceback: of the function's exception, else empty.
        attempts: how often it was started.
        seconds: wall clock of the last attempt.
    """

    job: Job
    value: dict[str, Any] | None
    error: str
    traceback: str
    attempts: int
    seconds: float


class Executor(Protocol):
    """Runs jobs: ``LocalExecutor`` on this machine, ``RayExecutor`` on a cluster."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Run jobs and give what came of them, in the order in which they finish.

        A job that fails does not stop the others. One whose process was lost (killed, out of memory, crashed, its
        machine gone) is started again; one whose function raised is not. Leaving the loop, or Ctrl-C, ends all jobs.

        Args:
            jobs: taken all at once; they start in about this order, as far as there is room for them.

        Raises:
            ValueError: two jobs have the same id.
            ExecutionError: nothing can be run at all.
        """
        ...


def with_different_ids(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs as a list.

    Raises:
        ValueError: two have the same id.
    """
    found: dict[str, Job] = {}
    for job in jobs:
        if job.id in found:
            raise ValueError(f"two jobs are named {job.id}")
        found[job.id] = job
    return list(found.values())
