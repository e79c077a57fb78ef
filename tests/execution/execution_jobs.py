"""Functions that jobs of the tests run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError


def double(arguments: dict[str, Any]) -> dict[str, Any]:
    sys.stdout.write(f"doubling {arguments['number']}\n")
    return {"double": 2 * arguments["number"], "process": os.getpid(), "pair": (1, 2)}


def surroundings(arguments: dict[str, Any]) -> dict[str, Any]:
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return {name: os.environ.get(name) for name in names} | {"folder": str(Path.cwd())}


def fail(arguments: dict[str, Any]) -> dict[str, Any]:
    with Path(arguments["count"]).open("a") as file:
        file.write("x")
    raise ValueError("seven\nis not eight")


def fail_for_user(arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        raise DataError("scan.nii is empty, give a whole one")
    except DataError as error:
        raise RuntimeError("wrapped") from error


def leave(arguments: dict[str, Any]) -> dict[str, Any]:
    sys.exit(0)


def no_dict(arguments: dict[str, Any]) -> Any:
    return 3


def die(arguments: dict[str, Any]) -> dict[str, Any]:
    """Kill the own process while there are fewer marks than ``deaths``."""
    marks = Path(arguments["count"])
    before = len(marks.read_text()) if marks.exists() else 0
    if before < arguments["deaths"]:
        with marks.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), arguments.get("signal", signal.SIGKILL))
    return {"deaths": before}


def wait_long(arguments: dict[str, Any]) -> dict[str, Any]:
    """Tell both process numbers, of this and of a child, and wait."""
    child = subprocess.Popen(["sleep", "300"])
    told = Path(arguments["told"])
    told.with_suffix(".part").write_text(f"{os.getpid()} {child.pid}")
    told.with_suffix(".part").rename(told)
    time.sleep(300)
    return {}


def overlap(arguments: dict[str, Any]) -> dict[str, Any]:
    """Count how many run at the same time, by a file each."""
    folder = Path(arguments["folder"])
    own = folder / str(os.getpid())
    own.touch()
    most = 0
    for _ in range(10):
        most = max(most, len(list(folder.iterdir())))
        time.sleep(0.02)
    own.unlink()
    return {"most": most}


def meet(arguments: dict[str, Any]) -> dict[str, Any]:
    """Leave a mark and wait until there are as many as wanted: only jobs that run at the same time get past it."""
    folder = Path(arguments["folder"])
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < arguments["wanted"]:
        time.sleep(0.01)
    return surroundings({})


def lose_worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Kill the Ray worker, whose child's child this process is, the first time."""
    marks = Path(arguments["count"])
    if not marks.exists():
        marks.touch()
        parent = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        os.kill(int(parent[1]), signal.SIGKILL)
        time.sleep(300)
    return {"process": os.getpid()}


def lose_own_worker(mark: Path, number: int) -> int:
    """A call of a pool: kills the worker that it runs in, the first time."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise DataError(f"{number} is too large, give a smaller one")
