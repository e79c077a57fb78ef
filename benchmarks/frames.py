"""Reading and ingesting endoscopic frames: the frame store against JPEG files read by Pillow in a DataLoader.

    python benchmarks/frames.py [--frames 100] [--rounds 5]

Reading: frames per second of a shuffled DataLoader (one process) that gives uint8 frames with a longest side of 512.
Ours reads them from the store and checks them; the peer opens the original JPEG file with Pillow, decodes and resizes
it, as torchvision's ImageFolder with a Resize does. Ingest: one process, against Pillow opening and resizing each file
and saving it as JPEG of the same quality. Rounds are interleaved in turning order; each ratio is the median over
rounds.

Frames: those of shared/data where they are, as they are and enlarged to 1280 columns as an endoscope of high definition
gives them; else generated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
from monai_ssl_transfer.data.slices import SliceDataset

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "frames.json"
REAL = HERE.parent.parent / "shared/data/endoscopy/Kvasir-SEG/images"
LONGEST_SIDE = 512


class JPEGFiles(Dataset):
    """Original files, decoded and resized by Pillow."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(np.array(resized(self.files[i]))).permute(2, 0, 1)


def resized(file: Path) -> Image.Image:
    with Image.open(file) as image:
        picture = image.convert("RGB")
    factor = min(LONGEST_SIDE / max(picture.size), 1)
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)


def write_frames(folder: Path, count: int, columns: int | None) -> str:
    """Put JPEG files into a folder; with ``columns``, enlarged to that width."""
    folder.mkdir()
    originals = sorted(REAL.glob("*.jpg"))
    random = np.random.default_rng(0)
    for number in range(count):
        if originals:
            file = originals[number % len(originals)]
            if columns is None:
                shutil.copy(file, folder / f"{number:05d}.jpg")
                continue
            picture = Image.open(file).convert("RGB")
        else:
            noise = random.uniform(0, 255, (60, 70, 3)).astype(np.uint8)
            picture = Image.fromarray(noise).resize((622, 529), Image.Resampling.BICUBIC)
        if columns is not None:
            picture = picture.resize(
                (columns, round(picture.height * columns / picture.width)), Image.Resampling.BICUBIC
            )
        # another crop for each copy, so that no content is met twice
        cut = number // max(len(originals), 1)
        picture.crop((cut, 0, picture.width, picture.height)).save(folder / f"{number:05d}.jpg", quality=90)
    return "Kvasir-SEG (real, shared/data)" if originals else "generated"


def seconds_to_read(dataset: Dataset, item: Any) -> float:
    loader = DataLoader(dataset, batch_size=None, shuffle=True, num_workers=0)
    start = time.perf_counter()
    for one in loader:
        item(one)
    return time.perf_counter() - start


def seconds_to_ingest(source: Path, folder: Path) -> float:
    start = time.perf_counter()
    ingest_frames(source, folder / "store", workers=1, duplicate_threshold=None, progress=False)
    return time.perf_counter() - start


def seconds_to_save(files: list[Path], folder: Path) -> float:
    folder.mkdir()
    start = time.perf_counter()
    for file in files:
        resized(file).save(folder / file.name, quality=95, subsampling=0)
    return time.perf_counter() - start


def summary(ours: list[float], theirs: list[float], count: int) -> dict[str, Any]:
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return {
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(ratios[0], 3),
        "highest": round(ratios[-1], 3),
        "ours_per_second": round(count / statistics.median(ours), 1),
        "peer_per_second": round(count / statistics.median(theirs), 1),
    }


def case(folder: Path, count: int, rounds: int, columns: int | None) -> dict[str, Any]:
    what = write_frames(folder / "frames", count, columns)
    files = sorted((folder / "frames").iterdir())
    report = ingest_frames(folder / "frames", folder / "kept", workers=1, duplicate_threshold=None, progress=False)
    count = report.frames  # copies of one content are stored once
    sides = (SliceDataset(folder / "kept", "rgb"), JPEGFiles(files[:count]))
    times: dict[str, list[float]] = {"read ours": [], "read peer": [], "ingest ours": [], "ingest peer": []}
    for number in range(rounds):
        for turn in (number % 2, (number + 1) % 2):
            work = folder / f"work{turn}"
            work.mkdir()
            if turn:
                times["read peer"].append(seconds_to_read(sides[1], lambda one: one.shape))
                times["ingest peer"].append(seconds_to_save(files[:count], work / "saved"))
            else:
                times["read ours"].append(seconds_to_read(sides[0], lambda one: one["image"].shape))
                times["ingest ours"].append(seconds_to_ingest(folder / "frames", work))
            shutil.rmtree(work)
    return {
        "frames": what,
        "columns": columns or "as they are",
        "count": count,
        "file_bytes_per_frame": sum(file.stat().st_size for file in files[:count]) // count,
        "store_bytes_per_frame": report.bytes_per_frame,
        "read": summary(times["read ours"], times["read peer"], count),
        "ingest": summary(times["ingest ours"], times["ingest peer"], count),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases, load = [], [os.getloadavg()[0]]
    for columns in (None, 1280):
        with tempfile.TemporaryDirectory() as temporary:
            cases.append(case(Path(temporary), options.frames, options.rounds, columns))
    load.append(os.getloadavg()[0])
    result = {
        "cases": cases,
        "rounds": options.rounds,
        "longest_side": LONGEST_SIDE,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": max(load),
        "load_too_high": max(load) > (os.cpu_count() or 1),
        "versions": {name: version(name) for name in ("pillow", "opencv-python-headless", "torch", "numpy")},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
