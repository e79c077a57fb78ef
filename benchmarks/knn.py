"""Nearest neighbours among a million embeddings: ours against faiss's flat index and a plain blocked matrix product.

    python benchmarks/knn.py                    1,000,000 x 384, 1,000 queries; writes benchmarks/results/knn.json
    python benchmarks/knn.py --rows 50000       a small machine
    python benchmarks/knn.py --table            put the table of that file into docs/probes.md

One process, one thread for each side, the sides in turn in every round, on the same bank and the same queries.
Compared are the seconds of processor time, which other programs on the machine lengthen less than those of the clock.
All get the same normalised embeddings, and the time to build faiss's index is not counted; the last row is ours when it
also normalises a bank that is not. Memory is the highest resident size during the search, less that before it (Linux);
the bank itself is not in it, faiss's copy of the bank is. Ours multiplies by numpy's OpenBLAS, which here (an AMD EPYC)
was 5 to 7 % faster than torch's product of the same tiles.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import torch
from torch import Tensor
from torch.nn import functional

from monai_ssl_transfer.engines.embedding.nearest import nearest

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "knn.json"
PAGE = HERE.parent / "docs" / "probes.md"
OURS, FAISS, PLAIN = "ours", "faiss.IndexFlatIP", "blocked matmul and topk"
COSINE = "ours, normalising as it goes"
Search = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def embeddings(rows: int, width: int, seed: int) -> Tensor:
    """(rows, width) float32, L2-normalised, in 1,000 overlapping clusters, made in parts."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(1000, width, generator=torch.Generator().manual_seed(0))
    found = torch.empty(rows, width)
    for part in found.split(65_536):
        part.normal_(generator=generator)
        part += 0.5 * centres[torch.randint(0, 1000, (len(part),), generator=generator)]
        part.copy_(functional.normalize(part, dim=1))
    return found


def search_plain(bank: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What one would write: tiles of 16,384 rows, `topk` of each, the best of both kept."""
    values, places = [], []
    for part in queries.split(512):
        best, place = torch.zeros(len(part), 0), torch.zeros(len(part), 0, dtype=torch.int64)
        for start in range(0, len(bank), 16_384):
            top, index = (part @ bank[start : start + 16_384].T).topk(min(count, len(bank) - start), dim=1)
            best, place = torch.cat([best, top], dim=1), torch.cat([place, index + start], dim=1)
            best, chosen = best.topk(min(count, best.shape[1]), dim=1)
            place = place.gather(1, chosen)
        values.append(best)
        places.append(place)
    return torch.cat(values), torch.cat(places)


class FaissSearch:
    """Exact search by inner product; the index is built once and given back after the search."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, bank: Tensor, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        index = faiss.IndexFlatIP(bank.shape[1])
        index.add(bank.numpy())
        begun = time.process_time()
        similarity, place = index.search(queries.numpy(), count)
        self.seconds = time.process_time() - begun
        return torch.from_numpy(similarity), torch.from_numpy(place)


def resident(peak: bool) -> int:
    """Resident bytes of this process now, or the highest since `forget_peak`; 0 where the system does not say."""
    status = Path("/proc/self/status")
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted)), 0)


def forget_peak() -> bool:
    """Start the highest resident size anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def measure(search: Search, bank: Tensor, queries: Tensor, count: int) -> tuple[dict[str, Any], Tensor]:
    """Processor seconds, clock seconds and extra memory of one search, and the similarities that it found."""
    gc.collect()
    known = forget_peak()
    before, clock, begun = resident(False), time.perf_counter(), time.process_time()
    similarity, _ = search(bank, queries, count)
    seconds, clock = time.process_time() - begun, time.perf_counter() - clock
    extra = resident(True) - before if known else None
    if isinstance(search, FaissSearch):
        seconds = search.seconds
    return {"cpu_seconds": seconds, "clock_seconds": clock, "extra_bytes": extra}, similarity


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    bank = embeddings(arguments.rows, arguments.width, 1)
    sides: dict[str, Search] = {
        OURS: partial(nearest, cosine=False),
        FAISS: FaissSearch(),
        PLAIN: search_plain,
        COSINE: nearest,
    }
    load, cases = os.getloadavg()[0], []
    for side in sides.values():  # what is made at the first call is not measured
        side(bank[:20_000], bank[:64], 5)
    for count in arguments.neighbours:
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(arguments.rounds):
            queries, first = embeddings(arguments.queries, arguments.width, 2 + number), None
            names = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
            for name in names:
                found, similarity = measure(sides[name], bank, queries, count)
                first = similarity if first is None else first
                torch.testing.assert_close(similarity, first, rtol=0, atol=1e-5)
                rounds[name].append(found)
        cases.append({"neighbours": count, "sides": summary(rounds)})
    names = ("torch", "faiss-cpu")
    return {
        "rows": arguments.rows,
        "width": arguments.width,
        "queries": arguments.queries,
        "rounds": arguments.rounds,
        "threads": 1,
        "cases": cases,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": load,
        "versions": {**{name: version(name) for name in names}, "python": platform.python_version()},
    }


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Per side the fastest round, the memory, and how many times ours is as fast (of the rounds: median, extremes)."""
    sides: dict[str, Any] = {}
    for name, found in rounds.items():
        ratios = [one["cpu_seconds"] / ours["cpu_seconds"] for one, ours in zip(found, rounds[OURS], strict=True)]
        memory = [one["extra_bytes"] for one in found if one["extra_bytes"] is not None]
        sides[name] = {
            "cpu_seconds_min": min(one["cpu_seconds"] for one in found),
            "clock_seconds_min": min(one["clock_seconds"] for one in found),
            "extra_mib_max": round(max(memory) / 2**20, 1) if memory else None,
            "ours_is_faster_by": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
        }
    return sides


def table(results: dict[str, Any]) -> str:
    """The results as a table of Markdown."""
    lines = [
        f"{results['rows']:,} x {results['width']} embeddings, {results['queries']:,} queries, one thread, "
        f"{results['rounds']} rounds, load {results['load']:.1f} on {results['machine']}; torch "
        f"{results['versions']['torch']}, faiss-cpu {results['versions']['faiss-cpu']}:",
        "",
        "| neighbours | side | processor time | ours is as fast | memory beyond the bank |",
        "|---|---|---|---|---|",
    ]
    for case in results["cases"]:
        for name, side in case["sides"].items():
            ratio = side["ours_is_faster_by"]
            times = "" if name == OURS else f"{ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
            memory = "not known" if side["extra_mib_max"] is None else f"{side['extra_mib_max']:,.0f} MiB"
            lines.append(f"| {case['neighbours']} | {name} | {side['cpu_seconds_min']:.2f} s | {times} | {memory} |")
    return "\n".join(lines) + "\n"


def put_into_page(text: str) -> None:
    """Replace what stands between the marks of docs/probes.md."""
    start, end = "<!-- benchmarks/knn.py -->\n", "<!-- end -->"
    page = PAGE.read_text()
    head, _, rest = page.partition(start)
    PAGE.write_text(head + start + text + end + rest.partition(end)[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only put the table into docs/probes.md")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.table:
        put_into_page(table(json.loads(arguments.out.read_text())))
        return
    results = run(arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
