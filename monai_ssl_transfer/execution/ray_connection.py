"""A Ray cluster for as long as it is needed: one that is there, or one on this machine that ends afterwards."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai_ssl_transfer.errors import ExecutionError

logger = logging.getLogger(__name__)
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to Ray's makers
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # would copy the working folder, data and all, to every machine
}
_SECONDS_TO_ANSWER = 10
_ATTEMPTS = 3


@contextmanager
def ray_cluster(
    address: str | None, *, cpus: int, object_store_mb: int = 100, show_output: bool = False
) -> Iterator[Any]:
    """Give the module ``ray``, connected.

    A connection that this process has already is used and kept.

    Args:
        address: ``"auto"``, ``"host:6379"`` or ``"ray://host:10001"``; None for the cluster of the environment
            variable ``RAY_ADDRESS`` if it is set, else for one on this machine that ends afterwards.
        cpus: cores of the one on this machine.
        object_store_mb: its memory for results, in 10^6 bytes.
        show_output: whether the output of workers is shown here.

    Raises:
        ExecutionError: Ray is not installed, no cluster answers at the address, or it does not fit this Python.
    """
    ray = _module()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    common = {"log_to_driver": show_output, "configure_logging": False, "logging_level": logging.WARNING}
    session = None
    if address is not None:
        _ask(address)
        _connect(ray, address, common)
    else:
        own = {"num_cpus": cpus, "object_store_memory": object_store_mb * 10**6, "include_dashboard": False}
        # the loopback address: nobody else's business, and a network that comes and goes does no harm
        session = _connect(ray, "local", {"_node_ip_address": "127.0.0.1", **own, **common})
    try:
        yield ray
    finally:
        ray.shutdown()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)  # logs and sockets of a cluster that is gone


def _connect(ray: Any, address: str, settings: dict[str, Any]) -> str | None:
    """Connect and return the cluster's folder of logs and sockets."""
    for attempt in range(_ATTEMPTS):
        try:
            return ray.init(address=address, **settings).address_info.get("session_dir")
        except Exception as error:  # Ray raises this very class when a start takes longer than 30 s
            if type(error) is Exception and attempt < _ATTEMPTS - 1:
                logger.warning("Ray did not start in time, which is tried again: %s", error)
                continue
            if type(error) is Exception:
                raise ExecutionError(
                    f"Ray did not start on this machine in {_ATTEMPTS} times 30 seconds, most likely since the machine "
                    "is too busy: try again later, or use --executor local"
                ) from error
            where = "on this machine" if address == "local" else f"at {address}"
            raise ExecutionError(f"Ray {where} cannot be used: {' '.join(str(error).split())}") from error
    return None


def _module() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ExecutionError("the executor ray needs Ray: pip install 'monai-ssl-transfer[study]'") from error
    return ray


def _ask(address: str) -> None:
    """Look whether anybody answers: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ExecutionError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): start one with `ray start --head`, or "
            "leave the address out for one on this machine"
        ) from error
