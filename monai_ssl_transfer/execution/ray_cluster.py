"""Jobs on a Ray cluster: the same process per job, outcomes and logs as on one machine."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from monai_ssl_transfer.execution.job_process import Ended, JobProcess
from monai_ssl_transfer.execution.job_worker import sentence_of
from monai_ssl_transfer.execution.jobs import Job, Outcome, with_different_ids
from monai_ssl_transfer.execution.machine import cores
from monai_ssl_transfer.execution.ray_connection import ray_cluster

_SECONDS_BETWEEN_CHECKS = 5


class RayExecutor:
    """Runs jobs on a Ray cluster; see ``Executor``.

    Every machine of the cluster must have this package and see the working folder under the same path.

    Args:
        address: see ``ray_cluster``; None starts a cluster on this machine at the first run, which ends with this
            object, at the latest with the program.
        workers: at most so many jobs are handed to Ray at once; None for all.
        retries: how often a job is started again whose process, worker or machine was lost.
        log_dir: folder for ``<id>.log`` with the output of each job; every machine must see it.
        cpus: cores of a cluster on this machine; None for all that this process may use.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        retries: int = 1,
        log_dir: str | Path | None = None,
        cpus: int | None = None,
    ) -> None:
        self._address, self._workers, self._retries = address, workers, retries
        self._log_dir = None if log_dir is None else Path(log_dir).absolute()
        self._cpus = cores() if cpus is None else cpus
        self._ray: Any = None

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Run jobs; see ``Executor.run``."""
        waiting = [(job, 1) for job in with_different_ids(jobs)]
        if not waiting:
            return
        run = _RayRun(self._connected(), self._log_dir)
        try:
            while waiting or run.started:
                while waiting and (self._workers is None or len(run.started) < self._workers):
                    run.start(*waiting.pop(0))
                for job, attempt, end in run.ended():
                    if end.lost and attempt <= self._retries:
                        waiting.insert(0, (job, attempt + 1))
                    else:
                        yield end.outcome(job, attempt)
        finally:
            run.cancel()

    def _connected(self) -> Any:
        """Connect once: a study has several runs, and a start takes seconds."""
        if self._ray is None or not self._ray.is_initialized():
            cluster = ExitStack()
            self._ray = cluster.enter_context(
                ray_cluster(self._address, cpus=self._cpus, show_output=self._log_dir is None)
            )
            weakref.finalize(self, cluster.close)
        return self._ray


class _RayRun:
    """The jobs that Ray has."""

    def __init__(self, ray: Any, log_dir: Path | None) -> None:
        self._ray, self._log_dir = ray, log_dir
        # Ray's own retries are silent, and without end for lack of memory
        self._attempt = ray.remote(max_retries=0)(attempt_job)
        self.started: dict[Any, tuple[Job, int, float]] = {}

    def start(self, job: Job, attempt: int) -> None:
        """Hand a job to Ray."""
        wanted = {"num_cpus": job.cpus, "num_gpus": job.gpus}
        if job.memory_gb:
            wanted["memory"] = int(job.memory_gb * 1e9)
        call = self._attempt.options(name=job.id, **wanted)
        reference = call.remote(job, attempt, self._log_dir, sys.path, Path.cwd())
        self.started[reference] = (job, attempt, time.monotonic())

    def ended(self) -> list[tuple[Job, int, Ended]]:
        """Jobs that are done, or that can never start; none if nothing has happened for some seconds."""
        impossible = self._impossible()
        if impossible:
            return impossible
        done, _ = self._ray.wait(list(self.started), num_returns=1, timeout=_SECONDS_BETWEEN_CHECKS)
        return [self._take(reference) for reference in done]

    def cancel(self) -> None:
        """End all jobs that Ray still has."""
        for reference in self.started:
            self._ray.cancel(reference, force=True)

    def _take(self, reference: Any) -> tuple[Job, int, Ended]:
        job, attempt, began = self.started.pop(reference)
        errors = self._ray.exceptions
        try:
            return job, attempt, self._ray.get(reference)
        except errors.RayTaskError as error:  # raised around the job, not by it
            sentence, lost, trace = f"{job.id} could not be started: {sentence_of(error.cause)}", False, str(error)
        except (errors.TaskCancelledError, errors.TaskUnschedulableError, errors.RuntimeEnvSetupError) as error:
            sentence, lost, trace = f"Ray did not run {job.id}: {sentence_of(error)}", False, ""
        except errors.OutOfMemoryError:
            sentence = f"Ray ended the worker of {job.id} for lack of memory: give it more memory"
            lost, trace = True, ""
        except errors.RayError as error:
            sentence = f"the Ray worker of {job.id}, or its machine, was lost ({type(error).__name__})"
            lost, trace = True, ""
        return job, attempt, Ended(None, sentence, trace, lost, time.monotonic() - began)

    def _impossible(self) -> list[tuple[Job, int, Ended]]:
        """Take back jobs that no machine of the cluster could run even alone: Ray would wait for ever."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        found = []
        for reference, (job, attempt, _) in list(self.started.items()):
            refusal = refusal_of(job, machines)
            if refusal:
                self._ray.cancel(reference, force=True)
                del self.started[reference]
                found.append((job, attempt - 1, Ended(None, refusal, "", False, 0.0)))
        return found


def refusal_of(job: Job, machines: Sequence[dict[str, float]]) -> str:
    """Why no machine could run a job, in one sentence; empty if one could.

    Args:
        job: the job.
        machines: resources of each, by Ray's names.
    """
    wanted = {"CPU": job.cpus, "GPU": job.gpus, "memory": job.memory_gb * 1e9}
    if any(all(machine.get(name, 0.0) >= amount for name, amount in wanted.items()) for machine in machines):
        return ""
    asked = f"{job.cpus:g} cores, {job.gpus:g} GPUs and {job.memory_gb:g} GB of memory"
    most = {name: max((machine.get(name, 0.0) for machine in machines), default=0.0) for name in wanted}
    return (
        f"{job.id} asks for {asked} on one machine, and no machine of the Ray cluster has that (the most are "
        f"{most['CPU']:g} cores, {most['GPU']:g} GPUs, {most['memory'] / 1e9:.4g} GB): ask for less, or add a machine"
    )


def attempt_job(job: Job, attempt: int, log_dir: Path | None, path: Sequence[str], folder: Path) -> Ended:
    """Do a job in a process of its own, on the machine where Ray has put this call.

    Args:
        job: the job; one that asks for GPUs sees those that Ray gave to this worker.
        attempt: from 1.
        log_dir: where the log goes.
        path: where the caller finds its modules.
        folder: the caller's working folder.

    Raises:
        FileNotFoundError: this machine does not see that folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"machine {os.uname().nodename} does not see the working folder {folder}")
    devices = None if job.gpus else ()
    return JobProcess(job, attempt, log_dir, devices, path, folder).wait()
