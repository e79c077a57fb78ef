"""Whether processes are there, and a program that runs jobs and is then interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

# the jobs of the program wait for ever; "told" gets their process numbers
_PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from monai_ssl_transfer.execution import Job, executor
if __name__ == "__main__":
    job = Job("long", "execution_jobs:wait_long", {{"told": {told!r}}})
    for outcome in executor({name!r}, 2, {address!r}).run([job]):
        pass
"""


def is_there(process: int) -> bool:
    """Whether it runs; one that waits for its parent to note its end does not."""
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(processes: list[int], seconds: float = 30) -> list[int]:
    """Return those that are still there at the end of the time."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if is_there(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def wait_for_numbers(told: Path, seconds: float = 240) -> list[int]:
    """Process numbers that a file names, once it is there."""
    deadline = time.monotonic() + seconds
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return [int(number) for number in told.read_text().split()]


def interrupt_program(folder: Path, name: str, address: str | None, number: signal.Signals) -> list[int]:
    """Run a job in a program that is interrupted by a signal; return which of the job's processes are still there."""
    told = folder / "told"
    text = _PROGRAM.format(tests=str(Path(__file__).parent), name=name, address=address, told=str(told))
    program = folder / "program.py"
    program.write_text(text)
    process = subprocess.Popen([sys.executable, str(program)], stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        jobs = wait_for_numbers(told)
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
    return wait_until_gone(jobs)
