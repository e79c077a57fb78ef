"""Write the README's table of speed from the results of the benchmarks; nothing in it is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def load(name: str) -> dict[str, Any]:
    """Result of one benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def view_rows() -> list[tuple[str, ...]]:
    """Views against lightly's transforms."""
    result = load("views")
    rows = []
    for case in result["cases"]:
        low, high = case["interval"]
        what = f"views of {case['method']}, {case['input']}"
        rows.append((what, "lightly's transform", f"{case['ratio']:.1f}x ({low:.1f} to {high:.1f})", case["load"]))
    return [(what, peer, ratio, f"{busy:.1f}") for what, peer, ratio, busy in rows]


def frame_rows() -> list[tuple[str, ...]]:
    """Reading and ingesting frames, at their own size and enlarged to high definition."""
    measured, found = load("frames"), []
    for case in measured["cases"]:
        size = case["columns"] if isinstance(case["columns"], str) else f"{case['columns']} columns"
        load_then = f"{measured['load']:.1f}"
        read, ingest = (f"{case[kind]['ratio']:.1f}x" for kind in ("read", "ingest"))
        found.append((f"random frame from the store, photographs {size}", "Pillow on the JPEG files", read, load_then))
        found.append((f"ingest of photographs {size}", "Pillow: open, resize, save", ingest, load_then))
    return found


def rows() -> list[tuple[str, ...]]:
    """All rows: what, peer, ratio, load of the machine."""
    store, ingest, engine = load("store"), load("ingest"), load("engine")
    inference, startup = load("inference"), load("startup")
    ours = store["sides"]["slice store (ours, checked)"]
    low, high = engine["ratio_of_medians_95"]
    busy = f"{store['load_average'][0]:.1f}"
    size = f"{ours['bytes_of_raw']:.0%} of the bytes"
    seconds = startup["seconds_min"]
    memory, speed = inference["memory"], inference["speed"]
    return [
        *view_rows(),
        ("random slice from the store", "one .npy per slice", f"{ours['to_npy']['median']:.2f}x at {size}", busy),
        ("random slice from the store", "nibabel on .nii.gz", f"{ours['to_gzip']['median']:.0f}x", busy),
        ("ingest", "reading alone, LoadImage(ITKReader)", f"{ingest['ratio']:.2f}x", f"{ingest['load']:.1f}"),
        *frame_rows(),
        (
            "pretraining step, time",
            "bare PyTorch loop",
            f"{engine['ratio_of_minima']:.3f} ({low:.3f} to {high:.3f})",
            f"{engine['load']:.1f}",
        ),
        (
            "volume inference on the same pixels (at 1.5 mm)",
            "MONAI SliceInferer, same network",
            f"{speed['speedup_ours_native_pixels']:.2f}x ({speed['speedup_ours_1_5_mm']:.1f}x)",
            f"{inference['load']:.1f}",
        ),
        (
            f"memory, 512 x 512 x {memory['slices']} volume to mask",
            "limit 6 GiB",
            f"{memory['peak_gib']:.1f} GiB",
            f"{inference['load']:.1f}",
        ),
        (
            "`ssl-transfer --help`",
            "import monai",
            f"{seconds['ssl-transfer --help']:.2f} s against {seconds['import monai']:.1f} s",
            f"{startup['load']:.1f}",
        ),
        (
            "bundle start to first step, time",
            "import monai",
            f"{startup['first_step_over_import_monai']:.2f}",
            f"{startup['load']:.1f}",
        ),
    ]


def main() -> None:
    """Replace the table between the two marks."""
    text = README.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    lines = ["| what | against | ratio (95 % interval) | load of the 2 cores |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows()]
    README.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}")


if __name__ == "__main__":
    main()
