"""No Ray, and no cluster where one should be, are a sentence."""

from __future__ import annotations

import sys

import pytest

from monai_ssl_transfer.errors import ExecutionError
from monai_ssl_transfer.execution import Job, executor

JOB = Job("a", "execution_jobs:double", {"number": 1})


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutionError, match=r"pip install 'monai-ssl-transfer\[study\]'"):
        list(executor("ray").run([JOB]))


def test_nobody_answers_at_the_address() -> None:
    if pytest.importorskip("ray").is_initialized():
        pytest.skip("this process is connected to a cluster by another test")
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(ExecutionError, match=f"no Ray cluster answers at {address} "):
            list(executor("ray", address=address).run([JOB]))
