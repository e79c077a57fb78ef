"""Worker processes, here or on a cluster: results in the order of the inputs, few at once, no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, TypeVar

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.execution import check_executor

_Output = TypeVar("_Output")


class Pool(Protocol):
    """What calls functions elsewhere: a ``ProcessPoolExecutor``, a ``RayPool``."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Begin a call; the ``result()`` of what is returned waits for it."""
        ...


_FEWER = "run the same command again with fewer --workers, it goes on where it stood"


@contextmanager
def worker_pool(workers: int, remedy: str = _FEWER) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that die with this one.

    Args:
        workers: how many; 1 or less gives None, for work in this process.
        remedy: what the user is told to do should one die.

    Raises:
        DataError: a process died.
    """
    if workers <= 1:
        yield None
        return
    # spawn: forking a process that has threads (tqdm, BLAS) may hang
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent
    ) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise DataError(f"a worker process died, probably for lack of memory; {remedy}") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def distributed_pool(
    workers: int, executor: str, address: str | None, folders: Sequence[Path]
) -> Iterator[Pool | None]:
    """Processes here (``worker_pool``) or on a Ray cluster.

    Args:
        workers: how many here.
        executor: ``"local"`` or ``"ray"``.
        address: of the cluster, see ``ray_cluster``.
        folders: what every machine of the cluster must see.

    Raises:
        DataError: a process died.
        ExecutionError: there is no such executor or cluster, a machine does not see a folder, or workers were lost
            again and again.
    """
    check_executor(executor, address)
    if executor == "local":
        with worker_pool(workers) as pool:
            yield pool
        return
    from monai_ssl_transfer.execution.ray_pool import ray_pool

    with ray_pool(address, workers, folders) as cluster:
        yield cluster


def in_order(
    pool: Pool | None, function: Callable[..., _Output], inputs: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[_Output]:
    """Results in the order of the inputs, few at once: a store is the same for any number of workers.

    Args:
        pool: processes, or None for work in this one.
        function: what is done; must pickle.
        inputs: arguments of each call, taken only as they are needed.
        ahead: at most so many results wait for the one before them.
    """
    if pool is None:
        yield from (function(*arguments) for arguments in inputs)
        return
    waiting: deque[Any] = deque()
    for arguments in inputs:
        waiting.append(pool.submit(function, *arguments))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _follow_parent() -> None:
    """Let this worker die with its parent: after a SIGKILL of the parent it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
