"""One job in a fresh process of its own, from its start to its answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.execution.job_worker import SIGNALLED
from monai_ssl_transfer.execution.jobs import Job, Outcome

# the parent's search path first, so that the job finds what the parent finds
_START = (
    "import json, sys; message = json.load(sys.stdin); sys.path[:] = message['path']; "
    "from monai_ssl_transfer.execution.job_worker import work; work(message)"
)
_SIGNALS = {int(one) for one in signal.Signals}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Ended:
    """What came of one attempt; ``lost`` when the process gave no answer."""

    value: dict[str, Any] | None
    error: str
    traceback: str
    lost: bool
    seconds: float

    def outcome(self, job: Job, attempts: int) -> Outcome:
        """The outcome of the job, this having been the last attempt."""
        error = f"{self.error} ({attempts} attempts)" if self.lost and attempts > 1 else self.error
        return Outcome(job, self.value, error, self.traceback, attempts, self.seconds)


class JobProcess:
    """A running job.

    It is the head of a process group: Ctrl-C reaches the parent only, and what the job has started ends with it.

    Args:
        job: what to do.
        attempt: number of the attempt, from 1, for the log.
        log_dir: folder for ``<id>.log``, to which output is appended; None sends it where that of this process goes.
        devices: GPUs that it may see; None leaves the environment's choice.
        more_path: folders to find modules in, after those of this process.
        folder: working folder; None for that of this process.
    """

    def __init__(
        self,
        job: Job,
        attempt: int = 1,
        log_dir: Path | None = None,
        devices: Sequence[str] | None = None,
        more_path: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        self.job, self.attempt = job, attempt
        self._log = None if log_dir is None else log_dir / f"{job.id}.log"
        self._began = time.monotonic()
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - has no name, so that nothing is left after a kill
        output = self._open_log()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env=self._environment(devices),
                pass_fds=(self._answer.fileno(),),
                start_new_session=True,
                cwd=folder,
            )
        finally:
            if output is not None:
                os.close(output)
        self._send([*sys.path, *(entry for entry in more_path if entry not in sys.path)])

    def wait(self) -> Ended:
        """Wait for its end."""
        code = self._process.wait()
        seconds = time.monotonic() - self._began
        self._end_group()
        with self._answer as file:
            file.seek(0)
            try:
                answer = json.loads(file.read())
            except ValueError:
                return Ended(None, self._epitaph(code), "", True, seconds)
        return Ended(answer.get("value"), answer.get("error", ""), answer.get("traceback", ""), False, seconds)

    def kill(self) -> None:
        """End it at once, with everything that it has started."""
        self._end_group()
        self._process.wait()

    def _open_log(self) -> int | None:
        if self._log is None:
            return None
        self._log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(output, f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} attempt {self.attempt}\n".encode())
        return output

    def _environment(self, devices: Sequence[str] | None) -> dict[str, str]:
        threads = dict.fromkeys(_THREADS, str(max(1, int(self.job.cpus))))
        seen = {} if devices is None else {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
        return {**os.environ, **threads, **seen}

    def _send(self, path: list[str]) -> None:
        message: dict[str, Any] = {"function": self.job.function, "arguments": self.job.arguments, "path": path}
        message |= {"parent": os.getpid(), "answer": self._answer.fileno()}
        stream = self._process.stdin
        with suppress(BrokenPipeError):  # it died at once: wait() tells
            if stream is not None:
                stream.write(json.dumps(message).encode())
                stream.close()

    def _end_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nothing is left of it
            os.killpg(self._process.pid, signal.SIGKILL)

    def _epitaph(self, code: int) -> str:
        where = "" if self._log is None else f", see {self._log}"
        number = -code if code < 0 else code - SIGNALLED
        if number == signal.SIGKILL:
            return (
                f"the process of {self.job.id} was killed (SIGKILL), most likely for lack of memory{where}: give it "
                "more memory or run fewer jobs at once"
            )
        cause = signal.Signals(number).name if number in _SIGNALS else f"exit code {code}"
        return f"the process of {self.job.id} ended without an answer ({cause}){where}"
