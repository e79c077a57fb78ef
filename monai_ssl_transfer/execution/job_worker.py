"""Inside the process of a job: call its function and hand back the answer; end when the parent is gone."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import threading
import time
import traceback
from typing import Any

from monai_ssl_transfer.errors import user_error_of

SIGNALLED = 128
"""Exit codes above it tell the signal that ended the job, as those of a shell do."""
_PARENT_CHECK_SECONDS = 0.3


def work(message: dict[str, Any]) -> None:
    """Do the job of a message of ``JobProcess`` and write the answer, as JSON, into its open file.

    A second process does it, and this one waits: if Ray kills a worker and its child at the same time, the other of
    the two is there to end all that the job has started.
    """
    guardian = os.getpid()
    worker = os.fork()  # before there are threads
    if worker:
        _end_all_without(message["parent"])
        _, status = os.waitpid(worker, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else SIGNALLED - code)
    _end_all_without(guardian)
    faulthandler.enable()  # a crash in compiled code tells the log where it was
    try:
        answer = json.dumps({"value": _call(message["function"], message["arguments"])})
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the parent is to hear of it
        traceback.print_exc()
        answer = json.dumps({"error": sentence_of(error), "traceback": traceback.format_exc()})
    with os.fdopen(message["answer"], "wb") as file:
        file.write(answer.encode())


def sentence_of(error: BaseException) -> str:
    """One sentence: that of the user error behind it, else kind and message in one line."""
    known = user_error_of(error)
    if known is not None:
        return str(known)
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _call(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    module, name = function.split(":")
    value = getattr(importlib.import_module(module), name)(arguments)
    if not isinstance(value, dict):
        raise TypeError(f"{function} must return a dict, not {type(value).__name__}")
    return value


def _end_all_without(parent: int) -> None:
    """End the whole process group of the job once the parent is gone, also after a SIGKILL of the parent."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()
