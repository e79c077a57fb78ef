"""Jobs on one machine or on a cluster."""

from __future__ import annotations

from pathlib import Path

from monai_ssl_transfer.errors import ExecutionError
from monai_ssl_transfer.execution.jobs import Executor, Job, Outcome
from monai_ssl_transfer.execution.local_pool import LocalExecutor

__all__ = ["EXECUTORS", "Executor", "Job", "LocalExecutor", "Outcome", "check_executor", "executor"]

EXECUTORS = ("local", "ray")


def executor(
    name: str = "local",
    workers: int | None = None,
    address: str | None = None,
    *,
    retries: int = 1,
    log_dir: str | Path | None = None,
) -> Executor:
    """Return the executor of a name.

    Args:
        name: ``"local"`` (this machine) or ``"ray"`` (a Ray cluster).
        workers: at most so many jobs at once on this machine; None for one per core. A cluster that is there already
            decides for itself.
        address: of a Ray cluster: ``"auto"``, ``"host:6379"`` or ``"ray://host:10001"``; None starts one on this
            machine, which ends with the executor.
        retries: how often a job is started again whose process was lost.
        log_dir: folder for ``<id>.log`` with the output of each job; every machine of a cluster must see it.

    Raises:
        ExecutionError: no executor is named so, or an address was given for the local one.
    """
    check_executor(name, address)
    if name == "ray":
        from monai_ssl_transfer.execution.ray_cluster import RayExecutor

        return RayExecutor(address, workers=workers, retries=retries, log_dir=log_dir)
    return LocalExecutor(workers, retries, log_dir)


def check_executor(name: str, address: str | None) -> None:
    """Make sure that there is such an executor.

    Raises:
        ExecutionError: none is named so, or an address was given for the local one.
    """
    if name not in EXECUTORS:
        raise ExecutionError(f"no executor is named {name!r}, give one of {', '.join(EXECUTORS)}")
    if name == "local" and address is not None:
        raise ExecutionError(f"the address {address} is for the executor ray, give --executor ray with it")
