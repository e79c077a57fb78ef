"""Random slices per second and bytes: the slice store against the other ways to keep CT slices.

    python benchmarks/store.py           measure, write benchmarks/results/store.json, print the table
    python benchmarks/store.py --table   put the table of that file into docs/slice-store.md

One process, one thread, warm page cache, many short interleaved rounds in turning order. The slices are the volume
shifted in the plane by other amounts for each copy, enough copies that no side lives in the processor's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import blosc2
import nibabel as nib
import numpy as np

from monai_ssl_transfer.data.store import SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_frames import checksum
from monai_ssl_transfer.data.store_writer import SliceStoreWriter, encode_slice

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "store.json"
PAGE = HERE.parent / "docs" / "slice-store.md"
REAL = HERE.parent.parent / "shared/data/ct_nifti/lits-layout/volume-0.nii.gz"
OURS, NPY, GZIP = "slice store (ours, checked)", "one .npy per slice", "nibabel slice of .nii.gz"
Read = Callable[[int], np.ndarray]


def load_volume() -> tuple[np.ndarray, str, Path | None]:
    """(slices, 512, 512) int16 HU, what it is, and its .nii.gz where there is one."""
    if REAL.exists():
        stored = np.asanyarray(nib.load(REAL).dataobj)
        return (
            np.ascontiguousarray(stored.transpose(2, 1, 0).astype(np.int16)),
            "LiTS volume-0 (real, shared/data)",
            REAL,
        )
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:512, :512]
    body = ((rows - 256) / 150) ** 2 + ((columns - 256) / 200) ** 2 < 1
    field = (rows - 256) ** 2 + (columns - 256) ** 2 < 250**2
    hu = np.where(body, rng.normal(40, 18, (60, 512, 512)), rng.normal(-1000, 9, (60, 512, 512)))
    return np.where(field, hu, -1024).round().astype(np.int16), "generated body in air, noise 18 HU", None


def copies(volume: np.ndarray, count: int) -> list[np.ndarray]:
    """``count`` different slices: whole copies of the volume, each shifted in the plane."""
    times = -(-count // len(volume))
    return [s for k in range(times) for s in np.roll(volume, (37 * k, 53 * k), (1, 2))][:count]


def build_ours(folder: Path, slices: list[np.ndarray]) -> Read:
    with SliceStoreWriter(folder) as writer:
        for number, start in enumerate(range(0, len(slices), 100)):
            some = slices[start : start + 100]
            encoded = [encode_slice(s, position=i, spacing=(0.8, 0.8), source=i) for i, s in enumerate(some)]
            writer.append(SeriesEntry(f"{number:032x}", "0" * 32, "nifti", 1.0, False, (0.0,) * 16), encoded)
    return SliceStore(folder).read


def build_npy(folder: Path, slices: list[np.ndarray]) -> Read:
    for i, s in enumerate(slices):
        np.save(folder / f"{i}.npy", s)
    root = str(folder)
    return lambda i: np.load(f"{root}/{i}.npy")


def build_memmap(folder: Path, slices: list[np.ndarray]) -> Read:
    np.save(folder / "all.npy", np.stack(slices))
    mapped = np.load(folder / "all.npy", mmap_mode="r")
    return lambda i: np.array(mapped[i])


def build_blosc2(codec: str, filter_name: str, level: int) -> Callable[[Path, list[np.ndarray]], Read]:
    """Plain Blosc2 chunks one after the other, read like ours but without a checksum."""

    def build(folder: Path, slices: list[np.ndarray]) -> Read:
        options: dict[str, Any] = {
            "codec": blosc2.Codec[codec],
            "filters": [blosc2.Filter[filter_name]],
            "filters_meta": [0],
            "clevel": level,
            "typesize": 2,
            "nthreads": 1,
        }
        places, end = [], 0
        with (folder / "chunks").open("wb") as file:
            for s in slices:
                chunk = blosc2.compress2(s, **options)
                places.append((end, len(chunk)))
                end += file.write(chunk)
        opened = os.open(folder / "chunks", os.O_RDONLY)
        scratch, shape = memoryview(bytearray(1 << 20)), slices[0].shape

        def read(i: int) -> np.ndarray:
            offset, size = places[i]
            os.preadv(opened, [scratch[:size]], offset)
            out = np.empty(shape, np.int16)
            blosc2.decompress2(scratch[:size], dst=out, nthreads=1)
            return out

        return read

    return build


def build_lmdb(folder: Path, slices: list[np.ndarray]) -> Read:
    import lmdb

    environment = lmdb.open(str(folder), map_size=1 << 40, readahead=False)
    with environment.begin(write=True) as transaction:
        for i, s in enumerate(slices):
            chunk = blosc2.compress2(s, codec=blosc2.Codec.LZ4, typesize=2, nthreads=1)
            transaction.put(b"%08d" % i, chunk)
    shape = slices[0].shape

    def read(i: int) -> np.ndarray:
        out = np.empty(shape, np.int16)
        with environment.begin(buffers=True) as transaction:
            blosc2.decompress2(transaction.get(b"%08d" % i), dst=out, nthreads=1)
        return out

    return read


def build_zarr(folder: Path, slices: list[np.ndarray]) -> Read:
    import zarr
    from zarr.codecs import BloscCodec

    shape = (len(slices), *slices[0].shape)
    array = zarr.create_array(
        folder / "a.zarr",
        shape=shape,
        dtype="int16",
        chunks=(1, *shape[1:]),
        shards=(min(100, len(slices)), *shape[1:]),
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    )
    step = array.shards[0]
    for start in range(0, len(slices) // step * step, step):
        array[start : start + step] = np.stack(slices[start : start + step])
    if len(slices) % step:
        array[len(slices) // step * step :] = np.stack(slices[len(slices) // step * step :])
    return lambda i: array[i]


def build_gzip(folder: Path, volume: np.ndarray, file: Path | None) -> Read:
    if file is None:
        file = folder / "volume.nii.gz"
        nib.save(nib.Nifti1Image(volume.transpose(2, 1, 0), np.eye(4)), file)
    else:
        shutil.copy(file, folder / "volume.nii.gz")
    depth = len(volume)
    return lambda i: np.asanyarray(nib.load(folder / "volume.nii.gz").dataobj[..., i % depth]).T


BUILDERS: dict[str, Callable[[Path, list[np.ndarray]], Read]] = {
    OURS: build_ours,
    NPY: build_npy,
    "memory-mapped .npy, copied": build_memmap,
    "blosc2 LZ4 + shuffle": build_blosc2("LZ4", "SHUFFLE", 5),
    "blosc2 LZ4HC + shuffle": build_blosc2("LZ4HC", "SHUFFLE", 5),
    "blosc2 LZ4HC + bitshuffle": build_blosc2("LZ4HC", "BITSHUFFLE", 5),
    "blosc2 zstd + bitshuffle": build_blosc2("ZSTD", "BITSHUFFLE", 5),
    "LMDB of blosc2 LZ4": build_lmdb,
    "zarr 3, sharded, LZ4": build_zarr,
}


def measure(readers: dict[str, Read], count: int, rounds: int, reads: int) -> dict[str, list[float]]:
    """Seconds per slice of every side in every round."""
    random = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for turn in range(rounds + 1):
        order = random.permutation(count)[:reads].tolist()
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            some, read = (order[:1] if name == GZIP else order), readers[name]
            start = time.perf_counter()
            for i in some:
                read(i)
            seconds[name].append((time.perf_counter() - start) / len(some))
    return {name: values[1:] for name, values in seconds.items()}  # the first round warms up


def ratio_to(base: list[float], values: list[float]) -> dict[str, float]:
    """Speed over the base's: median of the rounds' ratios, bootstrap interval of it, and the ratio of the minima."""
    ratios = np.array(base) / np.array(values)
    draws = np.random.default_rng(1).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {
        "median": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
        "minima": min(base) / min(values),
    }


def checksum_cost(read: Read) -> dict[str, float]:
    """Microseconds of our checksum and of CRC-32 over a typical frame."""
    import zlib

    frame = encode_slice(read(30), position=0, spacing=(1, 1)).image
    cost = {}
    for name, function in (("ours", checksum), ("zlib.crc32", zlib.crc32)):
        best = []
        for _ in range(50):
            start = time.perf_counter()
            function(frame)
            best.append(time.perf_counter() - start)
        cost[name] = 1e6 * min(best)
    return cost


def folder_bytes(folder: Path) -> int:
    """Bytes taken on the disk (LMDB's file has holes)."""
    return sum(min(f.stat().st_size, 512 * f.stat().st_blocks) for f in folder.rglob("*") if f.is_file())


def run(folder: Path, count: int, rounds: int, reads: int) -> dict[str, Any]:
    volume, what, file = load_volume()
    slices = copies(volume, count)
    raw = sum(s.nbytes for s in slices)
    readers, size, build_seconds = {}, {}, {}
    for number, (name, build) in enumerate(BUILDERS.items()):
        (folder / str(number)).mkdir()
        start = time.perf_counter()
        readers[name] = build(folder / str(number), slices)
        build_seconds[name] = time.perf_counter() - start
        size[name] = folder_bytes(folder / str(number)) / raw
    (folder / "gz").mkdir()
    readers[GZIP] = build_gzip(folder / "gz", volume, file)
    size[GZIP] = folder_bytes(folder / "gz") / volume.nbytes
    for name, read in readers.items():
        expected = volume if name == GZIP else slices
        for i in (0, 7, len(volume) - 1):
            if not np.array_equal(read(i), expected[i]):
                raise SystemExit(f"{name} does not give slice {i} back")
    load = [os.getloadavg()[0]]
    seconds = measure(readers, count, rounds, reads)
    load.append(os.getloadavg()[0])
    return {
        "volume": what,
        "slices": count,
        "rounds": rounds,
        "reads_per_round": reads,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {n: version(n) for n in ("numpy", "blosc2", "lmdb", "zarr", "nibabel")}
        | {"python": platform.python_version()},
        "load_average": load,
        "load_too_high": max(load) > (os.cpu_count() or 1),
        "checksum_microseconds": checksum_cost(readers[OURS]),
        "sides": {
            name: {
                "microseconds_min": 1e6 * min(values),
                "microseconds_median": 1e6 * float(np.median(values)),
                "bytes_of_raw": size[name],
                "build_ms_per_slice": 1e3 * build_seconds[name] / count if name in build_seconds else None,
                "to_npy": ratio_to(seconds[NPY], values),
                "to_gzip": ratio_to(seconds[GZIP], values),
            }
            for name, values in seconds.items()
        },
    }


def thresholds(results: dict[str, Any]) -> list[tuple[str, float, bool]]:
    """The issue's three conditions, the figure, and whether it holds."""
    ours, npy = results["sides"][OURS], results["sides"][NPY]
    size = ours["bytes_of_raw"] / npy["bytes_of_raw"]
    return [
        ("speed of one .npy per slice, at least 0.9", ours["to_npy"]["median"], ours["to_npy"]["median"] >= 0.9),
        ("bytes of one .npy per slice, at most 0.6", size, size <= 0.6),
        ("speed of .nii.gz through nibabel, at least 300", ours["to_gzip"]["median"], ours["to_gzip"]["median"] >= 300),
    ]


def table(results: dict[str, Any]) -> str:
    """Markdown of a results file."""
    lines = [
        "| way | slices/s (median round) | of the speed of .npy | 95 % interval | bytes of raw | build, ms/slice |",
        "|---|---|---|---|---|---|",
    ]
    for name, side in sorted(results["sides"].items(), key=lambda item: item[1]["microseconds_median"]):
        to, build = side["to_npy"], side["build_ms_per_slice"]
        rate, digits = 1e6 / side["microseconds_median"], 2 if to["median"] > 0.01 else 4
        lines.append(
            f"| {name} | {rate:,.0f} | {to['median']:.{digits}f} | {to['low']:.{digits}f} to {to['high']:.{digits}f} | "
            f"{100 * side['bytes_of_raw']:.1f} % | {'' if build is None else f'{build:.1f}'} |"
        )
    lines += ["", "| condition | measured | met |", "|---|---|---|"]
    lines += [f"| {what} | {value:.3g} | {'yes' if met else 'NO'} |" for what, value, met in thresholds(results)]
    cost = results["checksum_microseconds"]
    lines += [
        "",
        f"Volume: {results['volume']}, {results['slices']} slices of 512x512 int16; {results['rounds']} rounds of "
        f"{results['reads_per_round']} reads, one thread; load average {results['load_average'][0]:.1f} to "
        f"{results['load_average'][1]:.1f} on {results['machine']}"
        + (" (**too high to compare**)" if results["load_too_high"] else "")
        + f"; checksum {cost['ours']:.0f} us a slice (`zlib.crc32`: {cost['zlib.crc32']:.0f} us); "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
    ]
    return "\n".join(lines)


def put_into_page(text: str) -> None:
    """Replace what stands between the page's two markers."""
    begin, end = "<!-- table of benchmarks/store.py -->\n", "<!-- end of table -->"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(before + begin + text + "\n" + end + rest.split(end)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only put the table into docs/slice-store.md")
    parser.add_argument("--slices", type=int, default=900)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--reads", type=int, default=50, help="per round and side")
    parser.add_argument("--folder", type=Path, help="where to build the stores (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.table:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            results = run(folder, arguments.slices, arguments.rounds, arguments.reads)
        finally:
            shutil.rmtree(folder)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    text = table(json.loads(arguments.out.read_text()))
    if arguments.table:
        put_into_page(text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
