"""Function calls on a Ray cluster, waited for one by one: what a pool of processes does for ingest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import ExecutionError
from monai_ssl_transfer.execution.machine import cores
from monai_ssl_transfer.execution.ray_connection import ray_cluster

_OBJECT_STORE_MB = 1000


@contextmanager
def ray_pool(address: str | None, workers: int, folders: Sequence[Path] = (), retries: int = 2) -> Iterator[RayPool]:
    """A pool on a cluster; what is not done at the end is given up.

    Args:
        address: see ``ray_cluster``.
        workers: cores of a cluster on this machine.
        folders: what every machine must see under the same path.
        retries: how often a call is made again whose worker was lost.

    Raises:
        ExecutionError: there is no such cluster, or one of its machines does not see a folder.
    """
    with ray_cluster(address, cpus=min(workers, cores()), object_store_mb=_OBJECT_STORE_MB) as ray:
        _look_everywhere(ray, folders)
        pool = RayPool(ray, retries)
        try:
            yield pool
        finally:
            pool.cancel()


class RayPool:
    """Calls of functions that pickle, one core each."""

    def __init__(self, ray: Any, retries: int) -> None:
        self._ray, self._retries = ray, retries
        # Ray's own retries are without end for lack of memory
        self._call = ray.remote(max_retries=0, num_cpus=1)(_call)
        self._open: set[RayCall] = set()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> RayCall:
        """Begin a call."""
        call = RayCall(self._ray, lambda: self._call.remote(function, *arguments), self._retries, self._open.discard)
        self._open.add(call)
        return call

    def cancel(self) -> None:
        """Give up all calls whose result was not asked for."""
        for call in self._open:
            call.cancel()


class RayCall:
    """A call that was begun.

    Args:
        ray: the module.
        begin: begins it and returns Ray's reference.
        retries: how often it is begun again when its worker was lost.
        forget: told when it is over.
    """

    def __init__(self, ray: Any, begin: Callable[[], Any], retries: int, forget: Callable[[RayCall], None]) -> None:
        self._ray, self._begin, self._retries, self._forget = ray, begin, retries, forget
        self._reference = begin()

    def result(self) -> Any:
        """Wait for the result.

        Raises:
            ExecutionError: its worker was lost too often.
            Exception: what the function raised.
        """
        errors = self._ray.exceptions
        for attempt in range(self._retries + 1):
            try:
                result = self._ray.get(self._reference)
            except errors.RayTaskError as error:
                self._forget(self)
                raise error.cause from error
            except errors.RayError as error:
                if attempt == self._retries:
                    self._forget(self)
                    raise ExecutionError(
                        f"Ray lost a worker {attempt + 1} times in the same place ({type(error).__name__}), probably "
                        "for lack of memory; run the same command again with more memory per worker"
                    ) from error
                self._reference = self._begin()
            else:
                break
        self._forget(self)
        return result

    def cancel(self) -> None:
        """End it at once."""
        self._ray.cancel(self._reference, force=True)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _look_everywhere(ray: Any, folders: Sequence[Path]) -> None:
    """Make sure that every machine sees the folders: otherwise each of its files would be refused as missing."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0)(_unseen)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    pinned = [look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)) for node in nodes]
    for name, unseen in ray.get([one.remote(list(folders)) for one in pinned]):
        if unseen:
            raise ExecutionError(
                f"machine {name} of the Ray cluster does not see {unseen[0]}: put the data and the store where all "
                "machines see them under the same path"
            )


def _unseen(folders: list[Path]) -> tuple[str, list[Path]]:
    return os.uname().nodename, [folder for folder in folders if not folder.exists()]
