"""Worker processes: results in the order of the inputs, few at once, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from monai_ssl_transfer.errors import DataError

_Output = TypeVar("_Output")


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


def in_order(
    pool: ProcessPoolExecutor | None, function: Callable[..., _Output], inputs: Iterable[tuple[Any, ...]], ahead: int
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
    waiting: deque[Future[_Output]] = deque()
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
