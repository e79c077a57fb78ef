"""The slice store's write side: faults are real (SIGKILL, a full tmpfs, a second process)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_ssl_transfer.data.store import SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_format import SERIES_DTYPE, SLICE_DTYPE
from monai_ssl_transfer.data.store_writer import SliceStoreWriter, StoreBusyError, encode_slice
from monai_ssl_transfer.errors import DataError


def noisy(seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3000, (size, size)).astype(np.int16)


def entry(number: int) -> SeriesEntry:
    return SeriesEntry(f"{number:032x}", "a" * 32, "dicom", 0.0, True, (0.0,) * 16)


def add(writer: SliceStoreWriter, number: int, count: int = 2, size: int = 64) -> int:
    slices = [encode_slice(noisy(10 * number + i, size), position=i, spacing=(1.0, 1.0)) for i in range(count)]
    return writer.append(entry(number), slices)


def sound(path: Path, numbers: list[int], count: int = 2, size: int = 64) -> None:
    store = SliceStore(path)
    assert [int(store.series(i).series_key, 16) for i in range(store.series_count)] == numbers
    assert store.verify() == []
    for place, number in enumerate(numbers):
        for i, n in enumerate(store.series_range(place)):
            np.testing.assert_array_equal(store.read(n), noisy(10 * number + i, size))


def test_append_later(tmp_path: Path) -> None:
    with SliceStoreWriter(tmp_path) as writer:
        assert [add(writer, n) for n in (5, 6)] == [0, 1]
    with SliceStoreWriter(tmp_path) as writer:
        assert entry(6).series_key in writer and entry(7).series_key not in writer
        assert add(writer, 7) == 2
        assert entry(7).series_key in writer
    sound(tmp_path, [5, 6, 7])


def test_committed_before_close(tmp_path: Path) -> None:
    with SliceStoreWriter(tmp_path) as writer:
        add(writer, 1)
        sound(tmp_path, [1])
        add(writer, 2)
        sound(tmp_path, [1, 2])


def test_wrong_input_changes_nothing(tmp_path: Path) -> None:
    with SliceStoreWriter(tmp_path) as writer:
        add(writer, 1)
        with pytest.raises(DataError, match="already in the slice store"):
            add(writer, 1)
        with pytest.raises(DataError, match="no slice"):
            writer.append(entry(2), [])
        one = [encode_slice(noisy(0), position=0, spacing=(1, 1))]
        with pytest.raises(DataError, match="32-character key"):
            writer.append(SeriesEntry("John Doe", "a" * 32, "dicom", 0, False, (0.0,) * 16), one)
        with pytest.raises(DataError, match="16 affine numbers"):
            writer.append(SeriesEntry("b" * 32, "a" * 32, "dicom", 0, False, (0.0,) * 12), one)
        add(writer, 2)
    with pytest.raises(DataError, match="closed"):
        add(writer, 3)
    sound(tmp_path, [1, 2])


@pytest.mark.parametrize(
    ("hu", "mask"),
    [
        (np.zeros((4, 4), np.float32), None),
        (np.zeros((4, 4, 1), np.int16), None),
        (np.zeros((0, 4), np.int16), None),
        (np.zeros((4, 4), np.int16), np.zeros((4, 5), np.uint8)),
        (np.zeros((4, 4), np.int16), np.zeros((4, 4), np.int64)),
    ],
)
def test_wrong_arrays_are_refused(hu: np.ndarray, mask: np.ndarray | None) -> None:
    with pytest.raises(DataError, match="must be"):
        encode_slice(hu, position=0, spacing=(1, 1), mask=mask)


def test_shards_roll_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ssl_transfer.data.store_writer.SHARD_BYTES", 20_000)
    for first in (0, 5):
        with SliceStoreWriter(tmp_path) as writer:
            for number in range(first, first + 5):
                add(writer, number)
    shards = sorted(tmp_path.glob("shard-*.bin"))
    assert len(shards) > 3 and all(shard.stat().st_size < 40_000 for shard in shards)
    assert [shard.name for shard in shards] == [f"shard-{i:05d}.bin" for i in range(len(shards))]
    sound(tmp_path, list(range(10)))


def test_tails_of_a_crash_are_cut(tmp_path: Path) -> None:
    with SliceStoreWriter(tmp_path) as writer:
        add(writer, 1)
    whole = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for torn in (b"", b"x" * 11, bytes(SERIES_DTYPE.itemsize), b"y" * (SERIES_DTYPE.itemsize + 7)):
        for name, tail in (("shard-00000.bin", b"z" * 999), ("slices.bin", b"z" * (SLICE_DTYPE.itemsize + 1))):
            (tmp_path / name).write_bytes(whole[name] + tail)
        (tmp_path / "series.bin").write_bytes(whole["series.bin"] + torn)
        (tmp_path / "shard-00001.bin").write_bytes(b"unfinished")
        sound(tmp_path, [1])
        SliceStoreWriter(tmp_path).close()
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == whole


def test_damaged_store_is_not_appended_to(tmp_path: Path) -> None:
    with SliceStoreWriter(tmp_path) as writer:
        add(writer, 1)
    os.truncate(tmp_path / "shard-00000.bin", 100)
    with pytest.raises(DataError, match=r"shard-00000.bin has 100 bytes"):
        SliceStoreWriter(tmp_path)
    (tmp_path / "store.json").unlink()
    with pytest.raises(DataError, match=r"holds data but no store.json"):
        SliceStoreWriter(tmp_path)


def test_one_writer_in_a_process(tmp_path: Path) -> None:
    with SliceStoreWriter(tmp_path) as writer:
        with pytest.raises(StoreBusyError, match=f"another process is writing to the slice store {tmp_path}"):
            SliceStoreWriter(tmp_path)
        add(writer, 1)
    SliceStoreWriter(tmp_path).close()


CHILD = """
import sys, numpy as np
from monai_ssl_transfer.data.store import SeriesEntry
from monai_ssl_transfer.data.store_writer import SliceStoreWriter, encode_slice
with SliceStoreWriter(sys.argv[1]) as writer:
    number = int(sys.argv[2])
    print("open", "torch" in sys.modules or "monai" in sys.modules, flush=True)
    while True:
        slices = [encode_slice(np.random.default_rng(10 * number + i).integers(-1024, 3000, (64, 64)).astype(np.int16),
                               position=i, spacing=(1.0, 1.0)) for i in range(2)]
        writer.append(SeriesEntry(f"{number:032x}", "a" * 32, "dicom", 0.0, True, (0.0,) * 16), slices)
        print(number, flush=True)
        number += 1
"""


def test_killed_writer_leaves_every_finished_scan(tmp_path: Path) -> None:
    finished = 0
    for attempt in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path, str(finished)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open False\n"
        with pytest.raises(StoreBusyError):
            SliceStoreWriter(tmp_path)
        said = [child.stdout.readline() for _ in range(3)]
        time.sleep(0.003 * attempt)
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read().splitlines()
        child.wait()
        whole = SliceStore(tmp_path).series_count
        assert int(said[-1]) < whole <= int(said[-1]) + 2  # all that was said to be finished, at most one beyond
        sound(tmp_path, list(range(whole)))
        finished = whole
    with SliceStoreWriter(tmp_path) as writer:
        add(writer, finished)
    sound(tmp_path, list(range(finished + 1)))


def test_full_disk_keeps_the_committed_part(small_disk: Callable[[str], Path]) -> None:
    path = small_disk("200k") / "store"
    with SliceStoreWriter(path) as writer:
        number = 0
        with pytest.raises(DataError, match=f"cannot write to the slice store {path} .*No space left"):
            for number in range(100):
                add(writer, number, size=96)
        assert 1 < number < 99
        sound(path, list(range(number)), size=96)
        add(writer, 500, count=1, size=8)  # what still fits goes in: the failed scan left nothing behind
    store = SliceStore(path)
    assert store.series_count == number + 1 and store.verify() == []
    SliceStoreWriter(path).close()


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write to the slice store"):
        SliceStoreWriter(tmp_path / "file" / "store")
