"""Write the tables of the README and of docs/benchmarks.md from the results; nothing in them is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
IMAGES = {"pictures": "Medical MNIST", "slices": "CT slices", "phantoms": "generated CT"}


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


def method_rows() -> list[tuple[str, ...]]:
    """Pretraining of every method against lightly's documented loop."""
    found = []
    for case in load("methods")["cases"]:
        low, high = case["interval"]
        what = f"pretraining, {case['method']} with {case['encoder']}, {case['kind']}"
        memory = case["memory_mib"]
        ratio = f"{case['ratio']:.2f}x ({low:.2f} to {high:.2f})"
        ratio += f", {memory['ours']:.0f} against {memory['lightly']:.0f} MiB"
        found.append((what, "the same by lightly's documentation", ratio, f"{case['load']:.1f}"))
    return found


def learns_rows() -> list[tuple[str, ...]]:
    """Nearest neighbours before and after a short pretraining, and whether the gate was passed."""
    found = []
    for one in load("learns")["rows"]:
        spread = "" if one["interval"] is None else f" ({one['interval'][0]:.2f} to {one['interval'][1]:.2f})"
        method = f"{one['method']}, {one['control']}" if one["control"] else f"{one['method']}, {one['family']}"
        before, pixels = f"{one['random']:.2f}", f"{one['pixels']:.2f}"
        passed = "yes" if one["passed"] else "no"
        images, seeds = IMAGES[one["task"]], str(len(one["after"]))
        images += f", {one['steps']} steps" if one["task"] == "slices" else ""
        found.append((method, images, seeds, pixels, before, f"{one['mean']:.2f}{spread}", passed))
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
        *method_rows(),
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


def spread(cases: list[dict[str, Any]]) -> str:
    """From the smallest to the largest ratio of some cases."""
    ratios = [case["ratio"] for case in cases]
    low, high = f"{min(ratios):.1f}x", f"{max(ratios):.1f}x"
    return low if low == high else f"{low} to {high}"


def digest() -> list[tuple[str, ...]]:
    """The rows of the README: one per thing that is claimed."""
    views, frames, engine, inference = (
        load("views")["cases"],
        load("frames")["cases"],
        load("engine"),
        load("inference"),
    )
    ours = load("store")["sides"]["slice store (ours, checked)"]
    slices = f"{ours['to_npy']['median']:.2f}x at {ours['bytes_of_raw']:.0%} of the bytes"
    low, high = engine["ratio_of_medians_95"]
    step = f"{engine['ratio_of_minima']:.3f} of its time ({low:.3f} to {high:.3f})"
    sides = load("knn")["cases"][0]["sides"]
    knn = f"{sides['faiss.IndexFlatIP']['ours_is_faster_by']['median']:.2f}x, without its copy of them"
    colour = [case for case in views if case["input"].startswith("rgb")]
    grey = [case for case in views if not case["input"].startswith("rgb")]
    return [
        ("views of CT slices: SimCLR, MoCo v2, DINO", "lightly's transforms", spread(grey)),
        ("views of photographs", "lightly's transforms", spread(colour)),
        ("random slice from the store", "one .npy per slice", slices),
        ("random slice from the store", "nibabel on .nii.gz", f"{ours['to_gzip']['median']:.0f}x"),
        ("random frame from the store", "Pillow on the JPEG files", spread([case["read"] for case in frames])),
        ("ingest of photographs", "Pillow: open, resize, save", spread([case["ingest"] for case in frames])),
        ("pretraining on a CPU, all methods", "lightly's documentation", spread(load("methods")["cases"])),
        ("pretraining step", "bare PyTorch loop", step),
        ("20 nearest of a million embeddings, exactly", "faiss.IndexFlatIP", knn),
        ("memory of a 512 x 512 x 800 volume to its mask", "limit 6 GiB", f"{inference['memory']['peak_gib']:.1f} GiB"),
    ]


def with_table(text: str, name: str, head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    """The text with a table between the two marks of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = text.split(begin)
    lines = [f"| {' | '.join(row)} |" for row in (head, *body)]
    lines.insert(1, "|" + "---|" * len(head))
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.split(end)[1]}"


def pages() -> dict[Path, str]:
    """README and docs/benchmarks.md with the tables that belong between their marks."""
    head = ("what", "against", "ratio (95 % interval)", "load of the 2 cores")
    page = with_table(PAGE.read_text(), "benchmarks", head, rows())
    readme = with_table(README.read_text(), "benchmarks", ("what", "against", "ratio"), digest())
    head = ("method, encoder", "images", "seeds", "raw pixels", "untrained", "pretrained (95 %)", "clears both by 0.05")
    return {PAGE: page, README: with_table(readme, "learns", head, learns_rows())}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
