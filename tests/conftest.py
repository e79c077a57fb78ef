"""Fixtures of all tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# before torch is imported: sums depend on the number of threads, and some tests compare runs bit for bit
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _operators_stay_alive() -> None:
    """Keep every operator that torch.jit knows: it recognises them by ``id()`` and holds no reference.

    What imports the compiler replaces some (``quantized_decomposed``); a list that then got the ``id()`` of one that
    is gone could no longer be scripted ("builtin cannot be used as a value"), in a test far away and rarely. Those that
    came with the imports of the test modules are kept as well as later ones.
    """
    import torch
    from torch.jit import _builtins

    register = _builtins._register_builtin
    kept: list[object] = [dict(vars(each)) for each in vars(torch.ops).values() if hasattr(each, "__dict__")]

    def register_and_keep(operator: object, name: str) -> None:
        kept.append(operator)
        register(operator, name)

    _builtins._register_builtin = register_and_keep


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a real file system of a given size ("200k"), to be filled up; skips where mounting is not permitted."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        disk = tmp_path / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
        mounted.append(disk)
        return disk

    yield mount
    for disk in mounted:
        subprocess.run(["umount", "-l", str(disk)], check=True)
