"""What this machine has, and which part of it the running jobs have taken."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from monai_ssl_transfer.execution.jobs import Job

_GROUPS = Path("/sys/fs/cgroup")
_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Share:
    """What one running job has."""

    cpus: float
    memory_gb: float
    gpus: float
    devices: tuple[str, ...]


class Room:
    """Cores, memory and GPUs that jobs share.

    Args:
        cpus: cores; None for all.
        memory_gb: 10^9 bytes; None for all.
        devices: names of GPUs.
        jobs: at most so many at once; None for one per core.
    """

    def __init__(self, cpus: float | None, memory_gb: float | None, devices: list[str], jobs: int | None) -> None:
        self._cpus = self._free_cpus = float(cores() if cpus is None else cpus)
        self._memory = self._free_memory = total_memory_gb() if memory_gb is None else memory_gb
        self._free_devices = dict.fromkeys(devices, 1.0)
        self._places = max(1, int(self._cpus)) if jobs is None else max(1, jobs)

    def refusal(self, job: Job) -> str:
        """Why the job could not even run alone, in one sentence; empty if it could."""
        for asked, has, unit in (
            (job.cpus, self._cpus, "cores"),
            (job.gpus, len(self._free_devices), "GPUs"),
            (job.memory_gb, self._memory, "GB of memory"),
        ):
            if asked > has + _ROUNDING:
                return (
                    f"{job.id} asks for {asked:g} {unit} and this machine has {has:.4g}: ask for less or use a cluster"
                )
        return ""

    def take(self, job: Job) -> Share | None:
        """Take a job's share; None while there is not enough."""
        devices = self._devices_for(job.gpus)
        enough = job.cpus <= self._free_cpus + _ROUNDING and job.memory_gb <= self._free_memory + _ROUNDING
        if not (self._places and enough) or devices is None:
            return None
        share = Share(job.cpus, job.memory_gb, job.gpus, devices)
        self._settle(share, -1)
        return share

    def give_back(self, share: Share) -> None:
        """Free what a job had."""
        self._settle(share, 1)

    def _settle(self, share: Share, sign: int) -> None:
        self._places += sign
        self._free_cpus += sign * share.cpus
        self._free_memory += sign * share.memory_gb
        for device in share.devices:
            self._free_devices[device] += sign * min(1.0, share.gpus)

    def _devices_for(self, gpus: float) -> tuple[str, ...] | None:
        """Whole free GPUs, or the fullest one that has room for a part; None while there are none."""
        part = min(1.0, gpus)
        number = 0 if gpus == 0 else max(1, int(gpus))
        free = [device for device, left in self._free_devices.items() if left + _ROUNDING >= part]
        free.sort(key=lambda device: self._free_devices[device])
        return tuple(free[:number]) if len(free) >= number else None


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_gb() -> float:
    """Memory of this machine, or of the control group (container, SLURM job) that this process is in, in 10^9 bytes."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    own = Path("/proc/self/cgroup")
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for folder in [_GROUPS] + [_GROUPS / line.split(":", 2)[2].lstrip("/") for line in lines]:
        for file in (folder / name for name in _MEMORY_LIMITS):
            text = file.read_text(encoding="utf-8").strip() if file.exists() else "max"
            limits += [int(text)] if text.isdigit() else []
    return min(limits) / 1e9


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
