"""The slice store's read side, its frames and its layout."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monai_ssl_transfer.data import store as store_module
from monai_ssl_transfer.data.store import SLICE_DTYPE, SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_format import SERIES_DTYPE, record_crc
from monai_ssl_transfer.data.store_frames import (
    checksum,
    decode_image,
    decode_mask,
    encode_image,
    encode_mask,
    encode_slice,
)
from monai_ssl_transfer.data.store_writer import SliceStoreWriter
from monai_ssl_transfer.errors import DataError


def ct_like(seed: int, shape: tuple[int, int] = (96, 80), noise: float = 15.0) -> np.ndarray:
    """Body-like disc in air with noise, int16 HU."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = (rows - shape[0] / 2) ** 2 / shape[0] ** 2 + (columns - shape[1] / 2) ** 2 / shape[1] ** 2 < 0.16
    return np.where(inside, np.rint(rng.normal(40, noise, shape)), -1024).astype(np.int16)


def entry(number: int, patient: int = 0) -> SeriesEntry:
    return SeriesEntry(f"{number:032x}", f"{patient:032x}", "nifti", 2.5, False, tuple(float(x) for x in range(16)))


def series_of(seed: int, count: int = 3, masks: bool = True) -> list:
    slices = []
    for i in range(count):
        hu = ct_like(1000 * seed + i)
        mask = (hu > 40).astype(np.uint8) * 2 if masks else None
        source = (1 << 63) + 1000 * seed + i
        slices.append(encode_slice(hu, position=2.5 * i - 7, spacing=(0.8, 0.7), label=i, source=source, mask=mask))
    return slices


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with SliceStoreWriter(path) as writer:
        for number in range(4):
            writer.append(entry(number, patient=[3, 1, 3, 0][number]), series_of(number, 3 + number, masks=number != 2))
    return path


def test_everything_written_comes_back(small: Path) -> None:
    store = SliceStore(small)
    assert len(store) == 3 + 4 + 5 + 6 and store.series_count == 4
    assert store.series(2) == entry(2, patient=3)
    assert [store.series_range(n) for n in range(4)] == [range(3), range(3, 7), range(7, 12), range(12, 18)]
    for number in range(4):
        for i, n in enumerate(store.series_range(number)):
            hu, got = ct_like(1000 * number + i), store.read(n)
            assert got.dtype == np.int16 and got.flags.writeable
            np.testing.assert_array_equal(got, hu)
            record = store.index[n]
            assert (record["series"], record["rows"], record["columns"]) == (number, 96, 80)
            assert record["position"] == np.float32(2.5 * i - 7) and record["body_part"] == 255 and record["label"] == i
            assert int(record["source"]) == (1 << 63) + 1000 * number + i
            mask = store.read_mask(n)
            if number == 2:
                assert mask is None
            else:
                np.testing.assert_array_equal(mask, (hu > 40) * 2)
    assert store.verify() == []


def test_neighbours_and_patients(small: Path) -> None:
    store = SliceStore(small)
    assert [store.neighbours(i) for i in (0, 1, 2, 3, 6, 7)] == [(0, 1), (0, 2), (1, 2), (3, 4), (5, 6), (7, 8)]
    groups = store.patient_numbers()
    names = np.repeat([3, 1, 3, 0], [3, 4, 5, 6])
    assert groups.shape == (18,)
    np.testing.assert_array_equal(groups[:, None] == groups[None], names[:, None] == names[None])


def test_numbers_outside_are_refused(small: Path) -> None:
    store = SliceStore(small)
    for call in (store.read, store.read_mask, store.neighbours):
        for i in (-1, 18):
            with pytest.raises(IndexError, match="of 18"):
                call(i)


def test_content_hash_depends_on_content_alone(tmp_path: Path) -> None:
    for name, seeds in (("a", [1, 2]), ("b", [1, 2]), ("c", [1, 3]), ("d", [1])):
        with SliceStoreWriter(tmp_path / name) as writer:
            for number, seed in enumerate(seeds):
                writer.append(entry(number), series_of(seed))
    hashes = {name: SliceStore(tmp_path / name).content_hash for name in "abcd"}
    assert hashes["a"] == hashes["b"] and len({hashes["a"], hashes["c"], hashes["d"]}) == 3


def test_pickled_store_keeps_its_length_while_a_writer_appends(small: Path) -> None:
    store = SliceStore(small)
    packed, before = pickle.dumps(store), store.content_hash
    assert len(packed) < 1000
    with SliceStoreWriter(small) as writer:
        writer.append(entry(9), series_of(9))
    copy = pickle.loads(packed)
    assert (len(copy), copy.series_count, copy.content_hash) == (18, 4, before)
    np.testing.assert_array_equal(copy.read(17), store.read(17))
    assert len(SliceStore(small)) == 21


def _sums(store: SliceStore, numbers: list[int]) -> list[int]:
    return [int(store.read(i).astype(np.int64).sum()) for i in numbers]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_read_at_once(small: Path, method: str) -> None:
    store = SliceStore(small)
    numbers = list(range(18)) * 5
    expected = _sums(store, numbers)  # opens the shard before the fork
    with multiprocessing.get_context(method).Pool(3) as pool:
        assert pool.starmap(_sums, [(store, numbers)] * 6) == [expected] * 6


def test_threads_share_a_store_and_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ssl_transfer.data.store_writer.SHARD_BYTES", 1)
    monkeypatch.setattr(store_module, "OPEN_SHARDS", 2)
    with SliceStoreWriter(tmp_path / "s") as writer:
        for number in range(6):
            writer.append(entry(number), series_of(number))
    assert len(list((tmp_path / "s").glob("shard-*.bin"))) == 6
    store = SliceStore(tmp_path / "s")
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 18, 200):
            if not np.array_equal(store.read(int(i)), ct_like(1000 * (i // 3) + i % 3)):
                wrong.append(int(i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    open_shards = [f for f in Path("/proc/self/fd").iterdir() if os.path.realpath(f).startswith(str(tmp_path))]
    assert len([f for f in open_shards if "shard-" in os.path.realpath(f)]) <= 3


def _flip(file: Path, offset: int) -> None:
    with file.open("r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 0x10]))


def test_damage_is_named(small: Path) -> None:
    sound = SliceStore(small)
    shard = small / "shard-00000.bin"
    image, mask = sound.index[5], sound.index[13]
    _flip(shard, int(image["offset"]) + int(image["nbytes"]) // 2)
    _flip(shard, int(mask["mask_offset"]) + 9)
    store = SliceStore(small)
    with pytest.raises(DataError, match=r"shard-00000.bin: slice 5 is damaged"):
        store.read(5)
    with pytest.raises(DataError, match=r"shard-00000.bin: the mask of slice 13 is damaged"):
        store.read_mask(13)
    np.testing.assert_array_equal(store.read(13), ct_like(3001))
    assert len(store.verify()) == 2


def test_damaged_records_are_found(small: Path) -> None:
    _flip(small / "slices.bin", 4 * SLICE_DTYPE.itemsize + 5)
    _flip(small / "series.bin", 2 * SERIES_DTYPE.itemsize + 30)
    report = SliceStore(small).verify()
    assert len(report) == 2 and "series 1" in report[0] and "series 2" in report[1]


def test_short_files_are_named(small: Path) -> None:
    shard = small / "shard-00000.bin"
    os.truncate(shard, shard.stat().st_size // 2)
    store = SliceStore(small)
    np.testing.assert_array_equal(store.read(0), ct_like(0))
    with pytest.raises(DataError, match=r"shard-00000.bin: slice 17 is damaged \(the file ends too early\)"):
        store.read(17)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-00000.bin: slice 0 is damaged"):
        SliceStore(small).read(0)
    os.truncate(small / "slices.bin", 100)
    with pytest.raises(DataError, match=r"slices.bin has 100 bytes"):
        SliceStore(small)


def test_what_is_no_store_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a slice store"):
        SliceStore(tmp_path)
    header = small / "store.json"
    header.write_text(json.dumps({**json.loads(header.read_text()), "version": 99}))
    with pytest.raises(DataError, match="format 99"):
        SliceStore(small)
    header.write_text("{}")
    with pytest.raises(DataError, match="does not describe"):
        SliceStore(small)


def test_empty_store(tmp_path: Path) -> None:
    SliceStoreWriter(tmp_path / "s").close()
    store = SliceStore(tmp_path / "s")
    assert (len(store), store.series_count, store.verify(), len(store.patient_numbers())) == (0, 0, [], 0)
    assert store.content_hash == "0" * 32


OPEN_MILLIONS = """
import sys, time
from pathlib import Path
from monai_ssl_transfer.data.store import SliceStore
def resident():
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS")).split()[1])
before, start = resident(), time.perf_counter()
store = SliceStore(sys.argv[1])
last = store.index[len(store) - 1]
assert int(last["series"]) == 119_999 and store.neighbours(11_999_950) == (11_999_949, 11_999_951)
assert len(store.content_hash) == 32 and "torch" not in sys.modules and "monai" not in sys.modules
print(len(store), time.perf_counter() - start, (resident() - before) / 1024)
"""


def test_twelve_million_slices_open_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s"
    SliceStoreWriter(path).close()
    series = np.zeros(120_000, SERIES_DTYPE)
    series["first"], series["count"] = np.arange(120_000) * 100, 100
    for i in (0, 119_999):
        series[i]["crc"] = record_crc(series[i].tobytes())
    series.tofile(path / "series.bin")
    os.truncate(path / "slices.bin", 12_000_000 * SLICE_DTYPE.itemsize)  # a hole on the disk
    with (path / "slices.bin").open("r+b") as file:
        records = np.zeros(100, SLICE_DTYPE)
        records["series"] = 119_999
        file.seek(11_999_900 * SLICE_DTYPE.itemsize)
        file.write(records.tobytes())
    done = subprocess.run([sys.executable, "-c", OPEN_MILLIONS, path], capture_output=True, text=True, check=True)
    count, seconds, mebibytes = done.stdout.split()
    assert int(count) == 12_000_000
    assert float(seconds) < 1 and float(mebibytes) < 300  # the bounds; measured: 0.5 ms and 0.1 MiB


shapes = st.tuples(st.integers(1, 300), st.integers(1, 300))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.4, 5.0, 40.0, 9000.0]))
def test_frames_keep_every_value(shape: tuple[int, int], seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    hu = (ct_like(seed, shape) + np.rint(rng.normal(0, noise, shape))).clip(-32768, 32767).astype(np.int16)
    for array, encode, decode in (
        (hu, encode_image, decode_image),
        ((hu & 255).astype(np.uint8), encode_mask, decode_mask),
    ):
        frame = encode(array)
        assert len(frame) % 8 == 0
        np.testing.assert_array_equal(decode(frame, *array.shape), array)
        assert blosc2.decompress2(frame, nthreads=1)[: array.nbytes] == array.tobytes()  # any Blosc2 reads it


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.int16, shapes))
def test_frames_keep_arbitrary_values(hu: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_image(encode_image(hu), *hu.shape), hu)


def test_noisy_slices_stay_below_the_limit() -> None:
    """60 % of the bytes, with a noise of 80 HU everywhere."""
    hu = np.rint(np.random.default_rng(0).normal(0, 80, (512, 512))).astype(np.int16)
    assert len(encode_image(ct_like(0, (512, 512)))) < 0.6 * hu.nbytes


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.data())
def test_checksum_notices_changes(words: int, data: st.DataObject) -> None:
    frame = bytearray(np.random.default_rng(words).bytes(8 * words))
    good = checksum(bytes(frame))
    assert good == checksum(memoryview(frame)) and 0 <= good < 2**32
    start = data.draw(st.integers(0, len(frame) - 1))
    kind = data.draw(st.sampled_from(["bit", "zero", "shift"]))
    bad = bytearray(frame)
    if kind == "bit":
        bad[start] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "zero":
        bad[start : start + 512] = bytes(len(bad[start : start + 512]))
    else:
        bad = bad[start:] + bad[:start]
    assert (checksum(bytes(bad)) == good) == (bad == frame)


def test_checksum_is_the_formula() -> None:
    """Against plain integers: columns of 512 words, SplitMix64 numbers made odd, the upper half of the sum."""

    def weight(position: int) -> int:
        x = (position + 1) * 0x9E3779B97F4A7C15 % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return (x ^ (x >> 31)) | 1

    words = np.random.default_rng(3).integers(0, 2**64, 1300, dtype=np.uint64)
    total = sum(int(w) * weight(i % 512) for i, w in enumerate(words[:1024]))
    total += sum(int(w) * weight(512 + i) for i, w in enumerate(words[1024:]))
    assert checksum(words.tobytes()) == total % 2**64 >> 32


def test_series_records_carry_their_crc(small: Path) -> None:
    raw = (small / "series.bin").read_bytes()
    size = SERIES_DTYPE.itemsize
    assert len(raw) == 4 * size
    for i in range(4):
        record = raw[i * size : (i + 1) * size]
        assert zlib.crc32(record[:-4]) == int.from_bytes(record[-4:], "little")
