"""Slices per second of ingest against reading the same DICOM series with MONAI's LoadImage(ITKReader) alone.

    python benchmarks/ingest.py [--slices 120] [--rounds 3]

One process on both sides. Ours looks at every header, reads, converts to HU, reorients, compresses, writes and
flushes; theirs reads only.
Rounds are interleaved in turning order over generated series (512x512); the ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from monai_ssl_transfer.data.ct.ingest import ingest_ct

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "data"))
from dicom_phantom import write_ct

RESULTS = Path(__file__).parent / "results" / "ingest.json"


def write_scan(folder: Path, slices: int) -> None:
    """A body-like series: smooth shapes with noise, so that compression has real work."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:512j, -1:1:512j]
    body = rows**2 / 0.5 + columns**2 / 0.8
    for number in range(slices):
        hu = np.where(body < 1, 40 + 200 * (body < 0.05 + number / slices / 9), -1000) + random.normal(
            0, 12, body.shape
        )
        write_ct(folder / f"{number}.dcm", hu.astype(np.int16), [0, 0, float(number)], number)


def seconds_ours(source: Path, folder: Path, workers: int) -> float:
    """Time of an ingest into a new store."""
    start = time.perf_counter()
    ingest_ct(source, folder / "store", workers=workers, progress=False)
    elapsed = time.perf_counter() - start
    shutil.rmtree(folder)
    folder.mkdir()
    return elapsed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from monai.transforms import LoadImage

    with tempfile.TemporaryDirectory() as temporary:
        source, stores = Path(temporary) / "scan", Path(temporary) / "stores"
        stores.mkdir()
        write_scan(source, options.slices)
        load = LoadImage(reader="ITKReader")
        load(str(source))
        seconds_ours(source, stores, 1)
        ours, theirs = [], []
        for number in range(options.rounds):
            for turn in (number, number + 1):
                if turn % 2:
                    start = time.perf_counter()
                    load(str(source))
                    theirs.append(time.perf_counter() - start)
                else:
                    ours.append(seconds_ours(source, stores, 1))
    result = {
        "ratio": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 3),
        "ingest_slices_per_second": round(options.slices / statistics.median(ours), 1),
        "itkreader_slices_per_second": round(options.slices / statistics.median(theirs), 1),
        "slices": options.slices,
        "rounds": options.rounds,
        "versions": {name: version(name) for name in ("monai", "itk", "pydicom", "blosc2", "numpy")},
        "machine": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
