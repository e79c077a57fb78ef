"""Speed of the batched views on one core against lightly's own transforms of the same recipes.

Both sides run in one process on the same pictures, interleaved round by round, each on one thread, and give normalised
float32 views of the same sizes. Beside each ratio stands a check that both sides' views have the same statistics.
Lightly runs as its documentation says: a PIL picture in, views out; CT as a picture of the three HU windows.

    python benchmarks/views.py [--rounds 8] [--batch 32]     measures and writes benchmarks/results/views.json
    python benchmarks/views.py --table                       prints that file as a table
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from lightly.transforms import DINOTransform, MoCoV2Transform, SimCLRTransform
from PIL import Image

from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD
from monai_ssl_transfer.views import BONE, CT_MEAN, CT_STD, LUNG, SOFT_TISSUE, WIDE, BatchedViews, HUWindow, recipe
from monai_ssl_transfer.views.view_recipe import ViewRecipe

RESULTS = Path(__file__).parent / "results" / "views.json"
WINDOWS = (SOFT_TISSUE, LUNG, BONE)
CT_NORMALIZE = {"mean": [CT_MEAN] * 3, "std": [CT_STD] * 3}
TOLERANCE = {"mean": 0.04, "std": 0.10, "gradient": 0.20}
"""Allowed difference of the mean (in [0, 1] units), of the standard deviation and of the gradient energy (relative)."""
WARM_UP = 12
CASES = [(method, kind) for kind in ("ct windows", "ct single", "rgb") for method in ("simclr", "moco_v2", "dino")]


def lightly_transform(method: str) -> Callable[[Image.Image], list[torch.Tensor]]:
    """Lightly's transform with the published values; its DINO defaults are other ones, so they are given."""
    if method == "simclr":
        return SimCLRTransform()
    if method == "moco_v2":
        return MoCoV2Transform()
    # cj_strength must be lightly's default 0.5: its DINOTransform does not hand another one to the second view.
    return DINOTransform(n_local_views=8, cj_bright=0.8, cj_contrast=0.8, cj_sat=0.4, cj_hue=0.2)


def ct_slices(count: int, size: int = 512) -> np.ndarray:
    """Round bodies with organs, bone and noise in HU: (count, size, size) int16."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    slices = []
    for _ in range(count):
        hu = np.full((size, size), -1000, np.float32)
        cv2.ellipse(hu, (size // 2, size // 2), (size * 2 // 5, size * 3 // 10), 0, 0, 360, -80.0, -1)
        for _ in range(60):
            centre = (size // 2 + rng.integers(-140, 140), size // 2 + rng.integers(-100, 100))
            axes = tuple(int(a) for a in rng.integers(4, 45, 2))
            value = float(rng.choice([-700, -50, 40, 60, 110, 180, 500, 900]))
            cv2.ellipse(hu, tuple(int(c) for c in centre), axes, float(rng.integers(180)), 0, 360, value, -1)
        hu += 15 * np.sin(rows / 9) * np.cos(columns / 7)
        slices.append(cv2.GaussianBlur(hu, (0, 0), 0.8) + rng.normal(0, 12, hu.shape))
    return np.stack(slices).clip(-1024, 3071).astype(np.int16)


def rgb_pictures(count: int, size: int = 512) -> np.ndarray:
    """Smooth coloured scenes with edges, highlights and grain: (count, size, size, 3) uint8."""
    rng = np.random.default_rng(1)
    pictures = []
    for _ in range(count):
        scene = cv2.resize(
            rng.uniform(60, 200, (6, 6, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(80):
            centre = tuple(int(c) for c in rng.integers(0, size, 2))
            colour = tuple(float(c) for c in rng.uniform(0, 255, 3))
            cv2.ellipse(scene, centre, tuple(int(a) for a in rng.integers(3, 40, 2)), 0, 0, 360, colour, -1)
        scene = cv2.GaussianBlur(scene, (0, 0), 0.8) + rng.normal(0, 4, scene.shape)
        pictures.append(scene.clip(0, 255).astype(np.uint8))
    return np.stack(pictures)


def windowed_picture(hu: np.ndarray, windows: Sequence[HUWindow] = WINDOWS) -> Image.Image:
    """Three HU windows of a slice as the colours of an 8-bit picture: what lightly can take."""
    channels = [np.clip((hu - w.lower) / w.width, 0, 1) * 255 for w in windows]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


class Case:
    """One recipe on one kind of picture, with both sides ready to run."""

    def __init__(self, method: str, kind: str, batch: int) -> None:
        self.method, self.kind, self.batch = method, kind, batch
        self.domain = "rgb" if kind == "rgb" else "ct"
        self.channels = "rgb" if kind == "rgb" else kind.split()[1]
        self.transform = lightly_transform(method)
        self.views = BatchedViews(recipe(method, self.domain), self.channels, seed=0)
        if kind == "rgb":
            source = rgb_pictures(batch)
            # A loader decodes to (H, W, 3); as a tensor that is channels_last.
            self.image = torch.from_numpy(source).permute(0, 3, 1, 2)
            self.pil = [Image.fromarray(s) for s in source]
        else:
            source = ct_slices(batch)
            self.image = torch.from_numpy(source)[:, None]
            self.pil = [windowed_picture(s) for s in source]

    def ours(self, epoch: int) -> list[torch.Tensor]:
        """All views of the batch by this package."""
        return self.views(self.image, None, torch.arange(self.batch), epoch)

    def lightly(self) -> list[list[torch.Tensor]]:
        """All views of the batch by lightly."""
        return [self.transform(picture) for picture in self.pil]

    def measure(self, rounds: int) -> dict[str, list[float]]:
        """Milliseconds of processor time per picture of each round, both sides in turn.

        Both sides run on one thread, so on a quiet machine this is the wall time; on a busy one it leaves out the
        time in which other programs ran.
        """
        seconds: dict[str, list[float]] = {"ours": [], "lightly": []}
        for epoch in range(WARM_UP):  # fills the cache of resampling matrices, as the first minute of a run does
            self.ours(2000 + epoch)
        self.lightly()
        for number in range(rounds):
            start = time.process_time()
            self.ours(number + 1)
            middle = time.process_time()
            self.lightly()
            seconds["ours"].append((middle - start) * 1e3 / self.batch)
            seconds["lightly"].append((time.process_time() - middle) * 1e3 / self.batch)
        return seconds


def interval(seconds: dict[str, list[float]]) -> list[float]:
    """95 % bootstrap interval over rounds of the ratio of minima."""
    rng = np.random.default_rng(0)
    ours, lightly = np.array(seconds["ours"]), np.array(seconds["lightly"])
    draws = rng.integers(0, len(ours), (2000, len(ours)))
    return np.percentile(lightly[draws].min(1) / ours[draws].min(1), [2.5, 97.5]).round(2).tolist()


def statistics(view: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, float]:
    """Mean, standard deviation and gradient energy of views brought back to [0, 1]."""
    shape = (1, -1, 1, 1)
    shown = view * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    gradient = (shown.diff(dim=2) ** 2).mean() + (shown.diff(dim=3) ** 2).mean()
    return {"mean": shown.mean().item(), "std": shown.std().item(), "gradient": gradient.item()}


def without_ct_operations(view: ViewRecipe) -> ViewRecipe:
    """A CT recipe without what lightly cannot do: HU jitter and up-down flips."""
    return replace(view, jitter=None, vertical_flip=0.0)


def check_sides(case: Case) -> tuple[Callable[[int], list[torch.Tensor]], Callable[[], list[Any]]]:
    """Both sides of the distribution check.

    RGB: the very things that are timed. CT: crop, flip, resize and blur of both sides on one window from -1000 to
    1000 HU, which clips almost nothing: the package blurs HU before windowing, lightly can only blur what is windowed.
    """
    sample = torch.arange(case.batch)
    if case.domain == "rgb":
        return (lambda e: case.ours(1000 + e)), case.lightly
    views = BatchedViews([without_ct_operations(v) for v in case.views.recipe], "single", seed=1)
    more: dict[str, Any] = {"n_local_views": 8, "solarization_prob": 0.0} if case.method == "dino" else {}
    kinds = {"simclr": SimCLRTransform, "moco_v2": MoCoV2Transform, "dino": DINOTransform}
    transform = kinds[case.method](cj_prob=0.0, random_gray_scale=0.0, normalize=CT_NORMALIZE, **more)
    pictures = [windowed_picture(hu, (WIDE,) * 3) for hu in case.image[:, 0].numpy()]

    def ours(epoch: int) -> list[torch.Tensor]:
        return [v.expand(-1, 3, -1, -1) for v in views(case.image, None, sample, epoch)]

    return ours, lambda: [transform(picture) for picture in pictures]


def distribution_check(case: Case, repeats: int) -> dict[str, Any]:
    """Statistics of the first, second and last view of both sides over `repeats` passes over the batch."""
    norm = (IMAGENET_MEAN, IMAGENET_STD) if case.domain == "rgb" else ((CT_MEAN,) * 3, (CT_STD,) * 3)
    result: dict[str, Any] = {"tolerance": TOLERANCE, "pictures": repeats * case.batch, "views": {}, "within": True}
    ours, lightly = check_sides(case)
    numbers = sorted({0, 1, len(case.views.recipe) - 1})
    mine = [[views[n] for n in numbers] for views in map(ours, range(repeats))]
    theirs = [[views[n] for n in numbers] for _ in range(repeats) for views in lightly()]
    for place, number in enumerate(numbers):
        a = statistics(torch.cat([m[place] for m in mine]), *norm)
        b = statistics(torch.stack([t[place] for t in theirs]), *norm)
        difference = {"mean": abs(a["mean"] - b["mean"])}
        difference |= {key: abs(a[key] / b[key] - 1) for key in ("std", "gradient")}
        result["views"][str(number)] = {"ours": a, "lightly": b, "difference": difference}
        result["within"] &= all(difference[key] <= TOLERANCE[key] for key in TOLERANCE)
    return result


def environment() -> dict[str, Any]:
    """Versions, processor and load."""
    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    names = ("torch", "torchvision", "lightly", "opencv-python-headless", "numpy", "scipy", "pillow", "monai")
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def run(rounds: int, batch: int, repeats: int) -> dict[str, Any]:
    """All cases."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    report: dict[str, Any] = {"environment": environment(), "rounds": rounds, "batch": batch, "cases": []}
    for method, kind in CASES:
        case = Case(method, kind, batch)
        seconds = case.measure(rounds)
        entry = {
            "method": method,
            "input": f"{kind} 512x512",
            "views": [f"{v.size}" for v in case.views.recipe],
            "milliseconds": {
                k: {"min": min(v), "median": float(np.median(v)), "rounds": v} for k, v in seconds.items()
            },
            "ratio": min(seconds["lightly"]) / min(seconds["ours"]),
            "interval": interval(seconds),
            "load": os.getloadavg()[0],
            "distribution": distribution_check(case, repeats),
        }
        report["cases"].append(entry)
        print(row(entry), flush=True)
    report["valid"] = max(c["load"] for c in report["cases"]) <= (os.cpu_count() or 1)
    return report


def row(entry: dict[str, Any]) -> str:
    """One line of the table."""
    ours, lightly = entry["milliseconds"]["ours"], entry["milliseconds"]["lightly"]
    check = entry["distribution"].get("within")
    return (
        f"| {entry['method']} | {entry['input']} | {ours['min']:.2f} ({ours['median']:.2f}) | "
        f"{lightly['min']:.2f} ({lightly['median']:.2f}) | **{entry['ratio']:.1f}x** "
        f"({entry['interval'][0]:.1f} to {entry['interval'][1]:.1f}) | {1e3 / ours['min']:.0f} | "
        f"{'' if check is None else 'same' if check else 'DIFFERENT'} |"
    )


def table(report: dict[str, Any]) -> str:
    """The results as markdown."""
    where = report["environment"]
    head = (
        "| recipe | input | ours, ms/image: min (median) | lightly, ms/image: min (median) | ratio of minima (95 %) | "
        "ours, images/s | view statistics |\n|---|---|---|---|---|---|---|"
    )
    versions = ", ".join(f"{k} {v}" for k, v in where["versions"].items())
    note = f"One thread on {where['cpu']}, {where['cores']} cores, load {where['load']:.1f}; {versions}."
    if not report["valid"]:
        note += " The machine was busier than it has cores during the run: only the ratios count."
    return "\n".join([head, *(row(c) for c in report["cases"]), "", note])


def main() -> None:
    """Measure, or print the last measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=12, help="passes of the distribution check")
    parser.add_argument("--table", action="store_true", help="print the last results, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(RESULTS.read_text())))
        return
    report = run(max(6, arguments.rounds), arguments.batch, arguments.repeats)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
