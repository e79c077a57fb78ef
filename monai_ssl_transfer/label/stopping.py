"""A server that is told to stop ends what it has running.

MONAI Label watches each training in a thread that Python waits for before it exits, so that a server stopped during a
training stays until the training has ended. It offers no hook, therefore the handlers of the signals are followed up.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


def end_tasks_when_stopped() -> None:
    """Let SIGINT and SIGTERM end trainings, batch inferences and scorings before they end the server.

    Nothing is lost by it: a model is only replaced in one step, and labels are whole at every instant. Outside of the
    main thread, where Python sets no handlers, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        usual = signal.getsignal(number)

        def stop(received: int, frame: FrameType | None, usual: object = usual) -> None:
            _end_tasks()
            if callable(usual):
                usual(received, frame)

        signal.signal(number, stop)


def _end_tasks() -> None:
    from monailabel.utils.async_tasks.utils import background_executors, stop_background_task

    for method, executor in background_executors.items():
        executor.shutdown(wait=False, cancel_futures=True)
        stop_background_task(method)
