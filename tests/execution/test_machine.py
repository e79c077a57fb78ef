"""Cores, memory and GPUs that jobs share are never given out twice, and all of them are used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_ssl_transfer.execution import machine
from monai_ssl_transfer.execution.jobs import Job
from monai_ssl_transfer.execution.machine import Room, Share, total_memory_gb

_wishes = st.tuples(
    st.sampled_from([0.1, 0.5, 1, 2, 4]), st.sampled_from([0, 0.25, 0.5, 1, 2, 3]), st.sampled_from([0, 0.3, 3, 6])
)


@given(st.lists(st.tuples(_wishes, st.booleans()), max_size=40))
def test_nothing_is_given_out_twice(steps: list[tuple[tuple[float, float, float], bool]]) -> None:
    """Against a plain account; a job is refused only where the account says so, save for GPUs in pieces."""
    room = Room(4, 8.0, ["x", "y", "z"], 5)
    taken: list[Share] = []
    for (cpus, gpus, memory), give_back in steps:
        if give_back and taken:
            room.give_back(taken.pop(0))
        share = room.take(Job("j", "m:f", {}, cpus, gpus, memory))
        cores = sum(one.cpus for one in taken)
        gigabytes = sum(one.memory_gb for one in taken)
        used: Counter[str] = Counter()
        for one in taken:
            used.update({device: min(1.0, one.gpus) for device in one.devices})
        part, number = min(gpus, 1), 0 if gpus == 0 else max(1, int(gpus))
        enough = sum(used[device] + part <= 1 + 1e-6 for device in "xyz") >= number
        fits = cores + cpus <= 4 + 1e-6 and gigabytes + memory <= 8 + 1e-6 and len(taken) < 5 and enough
        assert (share is not None) == fits
        if share is not None:
            assert len(set(share.devices)) == number
            assert all(used[device] + part <= 1 + 1e-6 for device in share.devices)
            taken.append(share)


def test_parts_of_a_gpu_are_filled_before_another_is_begun() -> None:
    room = Room(8, 8.0, ["x", "y"], 8)
    halves = [room.take(Job("j", "m:f", {}, 1, 0.5)) for _ in range(2)]
    assert [share.devices for share in halves if share] == [("x",), ("x",)]
    whole = room.take(Job("j", "m:f", {}, 1, 1))
    assert whole is not None and whole.devices == ("y",)


def test_memory_is_that_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    whole = total_memory_gb()
    (tmp_path / "memory.max").write_text("max\n")
    assert total_memory_gb() == whole
    (tmp_path / "memory.max").write_text("1500000000\n")
    assert total_memory_gb() == 1.5
