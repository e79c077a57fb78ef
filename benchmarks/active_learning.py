"""Does it pay to let the server choose what to label? Score against number of labels, for every strategy and random.

    python benchmarks/active_learning.py [--images DIR] [--seeds 5] [--steps 400]
    python benchmarks/active_learning.py --table     # prints and draws the last results

The strategies of `label/` choose among images whose labels nobody knows before they are chosen; random draws are the
peer, five per seed. After every few labels a model on frozen features is judged on images that neither the pretraining
nor the strategies have seen:

- classes of Medical MNIST: logistic regression on the embeddings, balanced accuracy, one label at a time. Two pools: 32
  pictures of each class, and 32 to 2 of them, where the rare class changes with the seed.
- polyps of Kvasir-SEG: a linear model per pixel on the feature maps, Dice, labels in rounds of eight.

The encoders are pretrained here without labels, one for each data set (MoCo v2, small ResNet, the bundle's engine), and
all seeds share them: a seed changes the pool, k-means, dropout and the random draws. The spread therefore holds for
these encoders and test images alone. The pretraining saw all pictures that are not tested, so of a rare class more
than the rare pool has. No strategy was tuned on what is reported.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from labelled_images import TASKS, Task, command
from learns import ROOT, SCALES, Run, assembled, environment, image_folder
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn
from torch.nn import functional

from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.data.endoscopy.normalisation import normalise_frames
from monai_ssl_transfer.data.endoscopy.polyps import polyp_cases
from monai_ssl_transfer.label.selection import dense_and_uncertain, density, spread, typical_first, unit
from monai_ssl_transfer.label.uncertainty import RATE, mutual_information

RESULTS = Path(__file__).parent / "results" / "active_learning.json"
PICTURE = ROOT / "docs" / "pictures" / "active_learning.png"
SAMPLES = 5
"""Draws of dropout per image, as the server's scoring makes them."""
DRAWS = 5
"""Random orders per seed."""
PICTURE_POOLS = {"6 classes of 32 pictures": (32,) * 6, "rare classes: 32, 18, 10, 6, 4, 2": (32, 18, 10, 6, 4, 2)}
FRAME_SIDE, FRAME_POOL = 64, 320
RANDOM = "random"
Chooser = Callable[[list[int], int], Sequence[int]]
Curves = dict[str, list[list[list[float]]]]
"""Scores by strategy: seed, draw, number of labels."""


class Pool(Protocol):
    """Images to choose from, and what a model that was made of some of them is worth."""

    @property
    def vectors(self) -> np.ndarray:
        """(N, D) of `unit`."""

    def fit(self, rows: list[int]) -> Any:
        """A model of these rows' labels; None where they do not suffice."""

    def score(self, model: Any, rows: list[int]) -> float:
        """Of the model on the test images."""

    def doubt(self, model: Any, rows: np.ndarray, seed: int) -> np.ndarray:
        """(len(rows),) mutual information under dropout."""


@dataclass(frozen=True)
class Pictures:
    """Pictures with a class: a logistic regression on embeddings. See `Pool`."""

    vectors: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truth: np.ndarray

    def fit(self, rows: list[int]) -> LogisticRegression | None:
        found = self.labels[rows]
        return LogisticRegression(C=10, max_iter=500).fit(self.vectors[rows], found) if len(set(found)) > 1 else None

    def score(self, model: LogisticRegression | None, rows: list[int]) -> float:
        said = np.full(len(self.truth), self.labels[rows[0]]) if model is None else model.predict(self.test)
        return float(balanced_accuracy_score(self.truth, said))

    def doubt(self, model: LogisticRegression, rows: np.ndarray, seed: int) -> np.ndarray:
        rng, vectors = np.random.default_rng(seed), self.vectors[rows]
        drawn = [vectors * (rng.random(vectors.shape) >= RATE) / (1 - RATE) for _ in range(SAMPLES)]
        return mutual_information(torch.stack([torch.from_numpy(model.predict_proba(one)) for one in drawn])).numpy()


@dataclass(frozen=True)
class Frames:
    """Photographs with a mask: a linear model per pixel on feature maps, by the bundle's Dice and CE. See `Pool`.

    Args:
        vectors: (N, D).
        maps: (N, C, h, w) of the pool.
        masks: (N, s, s) of the pool.
        test: (M, C, h, w).
        truth: (M, s, s).
    """

    vectors: np.ndarray
    maps: Tensor
    masks: Tensor
    test: Tensor
    truth: Tensor

    def fit(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        share = functional.adaptive_avg_pool2d(self.masks[rows], (self.maps.shape[2], self.maps.shape[3])).flatten()
        pixels = self.maps[rows].movedim(1, -1).flatten(0, -2)
        weight, bias = torch.zeros(pixels.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=30, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            logits = pixels @ weight + bias
            said = logits.sigmoid()
            dice = (2 * (said * share).sum() + 1) / (said.square().sum() + share.square().sum() + 1)
            found = functional.binary_cross_entropy_with_logits(logits, share) + 1 - dice
            found = found + 1e-3 * weight.square().sum()
            found.backward()
            return found

        solver.step(loss)
        return weight.detach(), bias.detach()

    def score(self, model: tuple[Tensor, Tensor], rows: list[int]) -> float:
        weight, bias = model
        logits = torch.einsum("nchw,c->nhw", self.test, weight) + bias
        said = functional.interpolate(logits[:, None], self.truth.shape[-2:], mode="bilinear")[:, 0] > 0
        both, either = (said * self.truth).sum((1, 2)), said.sum((1, 2)) + self.truth.sum((1, 2))
        return float((2 * both / either.clamp_min(1)).mean())

    def doubt(self, model: tuple[Tensor, Tensor], rows: np.ndarray, seed: int) -> np.ndarray:
        weight, bias = model
        generator, maps = torch.Generator().manual_seed(seed), self.maps[torch.from_numpy(rows)]
        drawn = []
        for _ in range(SAMPLES):
            kept = (torch.rand(maps.shape[:2], generator=generator) >= RATE) * weight / (1 - RATE)
            drawn.append((torch.einsum("nchw,nc->nhw", maps, kept) + bias).sigmoid()[:, None])
        return mutual_information(torch.stack(drawn), exclusive=False).mean((1, 2)).numpy()


@dataclass(frozen=True)
class Experiment:
    """One panel.

    Args:
        title: what the pool is.
        metric: name of the score.
        counts: after how many labels it is measured.
        batch: labels per round.
        first: labels that TypiClust chooses for `ssl_uncertain`, before there is a model.
        tested: number of test images, in words.
        pool: by seed.
    """

    title: str
    metric: str
    counts: tuple[int, ...]
    batch: int
    first: int
    tested: str
    pool: Callable[[int], Pool]


def pretrained(task: Task, steps: int, work: str) -> tuple[nn.Module, dict[str, Any]]:
    """An encoder that was pretrained on a task's store, and how."""
    trainer, method = assembled(Run("moco_v2", "resnet", task.name, 0, steps, "cores", work), task)
    begin = time.perf_counter()
    trainer.run()
    made = {"method": "moco_v2", "encoder": "small_resnet", "image_size": SCALES["cores"].image_size}
    made |= {"images": len(task.pretrained_on), "steps": trainer.state.iteration}
    return method.transfer_encoder.eval(), made | {"seconds": round(time.perf_counter() - begin)}


def picture_experiments(work: Path, images: Path, steps: int) -> tuple[list[Experiment], dict[str, Any]]:
    """The classes of Medical MNIST."""
    task = TASKS["pictures"](work, images, SCALES["cores"].image_size)
    encoder, made = pretrained(task, steps, str(work))
    with torch.no_grad():
        vectors = torch.cat([encoder(part) for part in task.images.split(64)]).numpy()
    labels, asked = task.labels.numpy(), task.questions[0].queries.numpy()

    def pool(sizes: tuple[int, ...], seed: int) -> Pool:
        rng, available = np.random.default_rng(seed), task.pretrained_on
        order = rng.permutation(len(sizes))
        parts = [rng.permutation(available[labels[available] == c])[:n] for c, n in zip(order, sizes, strict=True)]
        rows = np.sort(np.concatenate(parts))
        # the centre is the pool's: nothing of the test pictures enters
        test = vectors[asked] - vectors[rows].mean(axis=0)
        return Pictures(unit(vectors[rows]), labels[rows], test / np.linalg.norm(test, axis=1)[:, None], labels[asked])

    copies = len(asked) // (len(task.images) - len(asked) - len(task.pretrained_on))
    tested = f"{len(asked) // copies} pictures, {copies} distorted copies of each"
    return [
        Experiment(
            f"Medical MNIST, {name}",
            "balanced accuracy",
            (6, 9, 12, 18, 24, 36, 48),
            1,
            6,
            tested,
            partial(pool, sizes),
        )
        for name, sizes in PICTURE_POOLS.items()
    ], made


def frame_experiments(work: Path, images: Path, steps: int) -> tuple[list[Experiment], dict[str, Any]]:
    """The polyps of Kvasir-SEG; no scene is on both sides."""
    folders = [images / "endoscopy" / name for name in ("Kvasir-SEG", "Kvasir-SEG-256")]
    parts = divide_frames(polyp_cases(folders), work, validation_fraction=0.0)
    for folder in folders:
        leave_out = ("--leave-out", str(work / "frames.json"), "--near-duplicates", "-1")
        command("ingest", "frames", str(folder / "images"), "--out", str(work / "frames"), "--workers", "2", *leave_out)
    nothing = torch.empty(0)
    encoder, made = pretrained(
        Task("frames", work / "frames", 0, "rgb", nothing, nothing, nothing, []), steps, str(work)
    )
    if made["images"] != len(parts["train"]):
        raise SystemExit(f"{made['images']} photographs were pretrained on instead of {len(parts['train'])}.")
    vectors, maps, masks = seen(encoder, parts["train"])
    _, test, truth = seen(encoder, parts["test"])

    def pool(seed: int) -> Pool:
        rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:FRAME_POOL])
        own = maps[torch.from_numpy(rows)]
        centre, width = own.mean((0, 2, 3), keepdim=True), own.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
        return Frames(unit(vectors[rows]), (own - centre) / width, masks[rows], (test - centre) / width, truth)

    floor = [2 * share / (1 + share) for share in truth.mean((1, 2)).tolist()]
    tested = f"{len(truth)} photographs; if all is called polyp, Dice {np.mean(floor):.3f}"
    title, counts = f"Kvasir-SEG, polyps in {FRAME_POOL} photographs", (8, 16, 24, 32, 48, 64, 96)
    return [Experiment(title, "Dice", counts, 8, 8, tested, pool)], made


@torch.no_grad()
def seen(encoder: Any, cases: list[dict[str, Any]]) -> tuple[np.ndarray, Tensor, Tensor]:
    """Embeddings (N, D), maps of all stages on one grid (N, C, h, w), and masks (N, s, s) of 0 and 1."""
    vectors, maps, masks = [], [], []
    for case in cases:
        image, mask = (torch.from_numpy(np.array(Image.open(case[key]).convert(mode))) for key, mode in _FILES.items())
        side = (FRAME_SIDE, FRAME_SIDE)
        pixels = functional.interpolate(image.movedim(-1, 0)[None].float(), side, mode="bilinear", antialias=True)
        share = functional.adaptive_avg_pool2d((mask > 127)[None].float(), side)
        stages = encoder.forward_intermediates(normalise_frames(pixels), indices=4, intermediates_only=True)
        grid = stages[0].shape[-2:]
        vectors.append(stages[-1].mean((2, 3)))
        maps.append(torch.cat([functional.interpolate(one, grid, mode="bilinear") for one in stages], dim=1))
        masks.append((share >= 0.5).float())
    return torch.cat(vectors).numpy(), torch.cat(maps), torch.cat(masks)


_FILES = {"image": "RGB", "label": "L"}


def choosers(pool: Pool, first: int, seed: int) -> dict[str, Chooser]:
    """What each strategy labels next, of (rows chosen so far, how many)."""
    vectors, crowding, rng = pool.vectors, density(pool.vectors), np.random.default_rng(seed)

    def free(chosen: list[int]) -> np.ndarray:
        return np.setdiff1d(np.arange(len(vectors)), chosen)

    def uncertain(beta: float) -> Chooser:
        def choose(chosen: list[int], count: int) -> Sequence[int]:
            model = pool.fit(chosen) if len(chosen) >= first else None
            if model is None:
                return typical_first(vectors, chosen, count, seed)
            rows = free(chosen)
            value = dense_and_uncertain(pool.doubt(model, rows, seed * 1000 + len(chosen)), crowding[rows], beta)
            return rows[np.argsort(-value, kind="stable")[:count]].tolist()

        return choose

    return {
        RANDOM: lambda chosen, count: rng.choice(free(chosen), count, replace=False).tolist(),
        "ssl_diverse (TypiClust)": lambda chosen, count: typical_first(vectors, chosen, count, seed),
        "ssl_diverse (coreset)": lambda chosen, count: spread(vectors, chosen, count),
        "ssl_uncertain": uncertain(1.0),
        "ssl_uncertain (beta 0)": uncertain(0.0),
    }


def curve(pool: Pool, choose: Chooser, experiment: Experiment) -> list[float]:
    """Score after each of the experiment's counts."""
    chosen: list[int] = []
    found = []
    while len(chosen) < max(experiment.counts):
        chosen.extend(choose(chosen, experiment.batch))
        if len(chosen) in experiment.counts:
            found.append(pool.score(pool.fit(chosen), chosen))
    return found


def measure(experiment: Experiment, seeds: int) -> dict[str, Any]:
    """Every strategy on every seed's pool."""
    curves: Curves = {}
    for seed in range(seeds):
        pool = experiment.pool(seed)
        for strategy in choosers(pool, experiment.first, seed):
            orders = [seed * DRAWS + n for n in range(DRAWS)] if strategy == RANDOM else [seed]
            made = [curve(pool, choosers(pool, experiment.first, one)[strategy], experiment) for one in orders]
            curves.setdefault(strategy, []).append(made)
        print(f"{experiment.title}, seed {seed}: done", flush=True)
    named = {key: getattr(experiment, key) for key in ("title", "metric", "counts", "tested")}
    return named | {"curves": curves}


def gaps(curves: Curves, strategy: str) -> np.ndarray:
    """(seeds, counts) score less the mean of the random draws from the same pool."""
    return np.array(curves[strategy]).mean(axis=1) - np.array(curves[RANDOM]).mean(axis=1)


def verdict(curves: Curves, strategy: str, counts: Sequence[int]) -> str:
    """Mean gap over all counts, its SD over the seeds, in how many seeds it is above 0, and where the mean is not."""
    found = gaps(curves, strategy)
    mean = found.mean(axis=1)
    sd = f" (SD {mean.std(ddof=1):.3f})" if len(mean) > 1 else ""
    behind = ", ".join(str(count) for count, gap in zip(counts, found.mean(axis=0), strict=True) if gap <= 0)
    return f"{mean.mean():+.3f}{sd}, {(mean > 0).sum()} of {len(mean)}" + (f"; behind at {behind}" if behind else "")


def table(report: dict[str, Any]) -> str:
    """Mean scores, and the gap to random."""
    lines = []
    for one in report["experiments"]:
        head = [
            f"{one['title']}; {one['metric']}",
            *[f"{count}" for count in one["counts"]],
            "gap to random (SD over seeds), seeds ahead",
        ]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for strategy, made in one["curves"].items():
            values = np.array(made).reshape(-1, len(one["counts"])).mean(axis=0)
            said = "" if strategy == RANDOM else verdict(one["curves"], strategy, one["counts"])
            lines.append(f"| {strategy} | " + " | ".join(f"{value:.3f}" for value in values) + f" | {said} |")
        lines.append("")
    return "\n".join(lines)


STYLES = [("#000000", "--", "x"), ("#0072b2", "-", "o"), ("#e69f00", "-", "s"), ("#009e73", "-", "^")]
STYLES += [("#cc79a7", ":", "v")]
"""Colours of Okabe and Ito, which colour-blind people can tell apart; lines and markers differ, too."""


def draw(report: dict[str, Any], file: Path) -> None:
    """Scores above, gaps to random below; mean and SD."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    experiments = report["experiments"]
    figure, axes = pyplot.subplots(2, len(experiments), figsize=(15, 10), sharex="col")
    for (upper, lower), one in zip(axes.T, experiments, strict=True):
        counts, curves = one["counts"], one["curves"]
        for (strategy, made), (colour, line, marker) in zip(curves.items(), STYLES, strict=True):
            look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 5, "linewidth": 1.8}
            found = gaps(curves, strategy)
            panels = [(upper, np.array(made).reshape(-1, len(counts)), strategy)]
            if strategy == RANDOM:
                lower.axhline(0, color=colour, linestyle=line, linewidth=1.8)
            else:
                panels.append((lower, found, f"{strategy.removeprefix('ssl_')}: {verdict(curves, strategy, counts)}"))
            for axis, values, label in panels:
                mean, sd = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
                axis.plot(counts, mean, label=label, **look)
                axis.fill_between(counts, mean - sd, mean + sd, color=colour, alpha=0.12, linewidth=0)
        upper.set(title=one["title"], ylabel=f"{one['metric']}, held-out images")
        lower.set(xlabel="labelled images", ylabel=f"gap to random, {one['metric']}", xticks=counts)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "frameon": False, "fontsize": 9}
        lower.legend(title="gap, mean of all points (SD over seeds), seeds ahead of random", **below)
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=10)
    seeds = len(experiments[0]["curves"][RANDOM])
    figure.suptitle(
        f"Who chooses what to label first: score on held-out images (above) and gap to random choice (below).\nMean "
        f"over {seeds} seeds, band: one SD; frozen MoCo v2 encoders, one pretraining per data set, shared by the seeds",
        fontsize=13,
    )
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of real images (default: as the tests find it)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of each pretraining")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--table", action="store_true", help="print and draw the last results, run nothing")
    arguments = parser.parse_args()
    arguments.out, arguments.picture = arguments.out.resolve(), arguments.picture.resolve()
    if not arguments.table:
        images = image_folder(arguments.images)
        if images is None:
            parser.error("no real images were found: give their folder with --images.")
        images = images.resolve()
        os.chdir(ROOT)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        logging.disable(logging.WARNING)
        report: dict[str, Any] = {"environment": environment(), "pretraining": {}, "experiments": []}
        for name, prepare in (("pictures", picture_experiments), ("frames", frame_experiments)):
            with tempfile.TemporaryDirectory() as work:
                experiments, report["pretraining"][name] = prepare(Path(work), images, arguments.steps)
                print(f"{name}: {report['pretraining'][name]}", flush=True)
                report["experiments"] += [measure(one, arguments.seeds) for one in experiments]
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    report = json.loads(arguments.out.read_text())
    draw(report, arguments.picture)
    print(table(report))


if __name__ == "__main__":
    main()
