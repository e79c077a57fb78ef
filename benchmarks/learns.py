"""Does every method learn? Nearest-neighbour accuracy before and after a short pretraining on real images, with a gate.

    python benchmarks/learns.py [--methods simclr dino] [--data pictures slices] [--seeds 3] [--steps 200] [--workers 2]
    python benchmarks/learns.py --scale gpu     # ResNet50 and ViT-S, longer
    python benchmarks/learns.py --table         # prints the last results

Each run is the bundle's own: train.json with the overlays of the method and of a small store, in this process, with an
encoder that two cores can train. The gate, set before any method was looked at: the mean over the seeds must exceed by
`MARGIN` both the mean of `INITIALISATIONS` untrained encoders of the kind and the best of four forms of raw pixels.
Three negative controls must not pass it: learning rate 0, a constant head, and positive pairs made of strangers. The
command fails when a method does not pass or a control does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from labelled_images import TASKS, Task
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "learns.json"
MARGIN = 0.05
INITIALISATIONS = 10
ROWS = [
    ("simclr", "resnet"),
    ("simclr_v2", "resnet"),
    ("moco_v2", "resnet"),
    ("moco_v3", "resnet"),
    ("moco_v3", "vit"),
    ("barlow_twins", "resnet"),
    ("dino", "resnet"),
    ("dino", "vit"),
    ("mae", "vit"),
    ("dinov2", "vit"),
]
FAMILIES = ("resnet", "vit")
LEFT_OUT = ("ExactResumeHandler", "EncoderExporter")
"""Handlers of the bundle: checkpoints would be most of a short run, and only named encoders are exported."""
KEY = ("method", "family", "task", "control", "steps")
"""What names a row of the results."""
CONTROLS = ("learning rate 0", "constant head", "strangers as pairs")
CONTROLLED = ("simclr", "resnet")
"""The method whose runs are spoilt."""


@dataclass(frozen=True)
class Scale:
    """Sizes of one kind of machine.

    Args:
        image_size: side of the views and of the judged images in pixels.
        batch_size: images per step.
        steps: optimizer steps of a run.
        encoders: `encoder_name` and settings of `network_def` by family; the name chooses the published values.
        overlays: after the method's.
        settings: over everything else.
    """

    image_size: int
    batch_size: int
    steps: int
    encoders: dict[str, tuple[str, dict[str, Any]]]
    overlays: tuple[str, ...]
    settings: dict[str, Any]


def small(builder: str, **settings: Any) -> dict[str, Any]:
    """A network definition of `small_encoders`."""
    return {"_target_": f"small_encoders.{builder}", "in_channels": 3, **settings}


SCALES = {
    "cores": Scale(
        image_size=48,
        batch_size=64,
        steps=200,
        encoders={
            "resnet": ("resnet18", small("small_resnet")),
            "vit": ("vit_tiny", small("small_vit", image_size="@image_size", pooling="@pooling")),
        },
        overlays=("configs/scale/small_store.json",),
        settings={"num_workers": 0, "learning_rate_rule": "linear", "reference_batch": 256},
    ),
    "gpu": Scale(
        image_size=224,
        batch_size=256,
        steps=4000,
        encoders={"resnet": ("resnet50", {}), "vit": ("vit_small", {})},
        overlays=("configs/scale/small_store.json", "configs/scale/one_gpu_bf16.json"),
        settings={"num_workers": 8},
    ),
}
SMALL_HEAD = {"method#head#hidden_dim": 256, "method#head#bottleneck_dim": 64}
APART = {
    "head_batch_norm": True,
    "method#head#hidden_dim": 1024,
    "teacher_temperature": 0.04,
    "warmup_epochs": 10,
}
"""For a ViT on slices, which look more alike than pictures do: without this their embeddings fell together."""
FOLLOWING = {"prototypes": 256, "local_views": 0, "learning_rate": 0.002, "momentum": 0.98, "teacher_temperature": 0.07}
"""For a ViT's teacher that has some hundred steps to follow, and views of which no smaller ones can be cut."""
SMALL_DATA: dict[str, dict[str, Any]] = {
    # crops from 8 % of a picture leave methods of two views at chance on few images: docs/real-data.md
    "simclr": {"recipe_name": "moco_v2"},
    "simclr_v2": {"recipe_name": "moco_v2"},
    # published heads would be a hundred times the small encoder
    "moco_v3": {"method#hidden_dim": 1024},
    # small_store.json brings the temperature of 0.2; the published 1 wants batches of thousands
    "moco_v3 resnet": {"momentum": 0.95, "learning_rate": 0.012},
    "barlow_twins": {"learning_rate": 0.012, "method#hidden_dim": 512, "method#output_dim": 256},
    "dino": FOLLOWING | SMALL_HEAD,
    "dino resnet": {"learning_rate": 0.008, "momentum": 0.9, "teacher_temperature": 0.04},
    "dino resnet slices": {"learning_rate": 0.012, "momentum": 0.98},
    "dino vit slices": APART | {"recipe_name": "moco_v2", "drop_path": 0.0},
    "dinov2": FOLLOWING
    | SMALL_HEAD
    | {
        "drop_path": 0.0,
        "koleo_weight": 0.01,
        "patch_learning_rate_factor": 1.0,
    },
    "dinov2 vit slices": APART | {"centring": "sinkhorn_knopp", "koleo_weight": 0.05},
    "mae": {"decoder_width": 64, "decoder_depth": 1},
}
"""Settings by method (and encoder, and images) beside the overlays', for few images, few steps and a small encoder."""
STEPS: dict[str, dict[str, int]] = {
    "pictures": {
        "moco_v2": 400,
        "mae": 1500,
        "barlow_twins": 400,
        "dino": 500,
        "dino vit": 900,
        "dinov2": 600,
        "moco_v3": 300,
    },
    # four times as many images: with 200 and 400 steps neither SimCLR nor MoCo v2 passed
    "slices": {
        "simclr": 800,
        "simclr_v2": 800,
        "moco_v2": 1600,
        "mae": 2000,
        "barlow_twins": 2000,
        "dino": 2000,
        "dino vit": 900,
        "dinov2": 1000,
        "moco_v3": 600,
        "moco_v3 vit": 900,
    },
}
"""Steps of the methods (and encoders) whose steps are cheap or which need more; the others make those of the scale."""


@dataclass(frozen=True)
class Run:
    """One pretraining.

    Args:
        method: name of the overlay.
        family: "resnet" or "vit".
        task: name of the task.
        seed: of weights, order and views.
        steps: optimizer steps, about.
        scale: name of the scale.
        work: folder of stores and runs.
        control: one of `CONTROLS`, or nothing.
    """

    method: str
    family: str
    task: str
    seed: int
    steps: int
    scale: str
    work: str
    control: str = ""


def task_file(run: Run) -> Path:
    return Path(run.work) / f"{run.task}_{SCALES[run.scale].image_size}.pt"


def own_settings(run: Run) -> dict[str, Any]:
    """What `SMALL_DATA` has for a run."""
    keys = (run.method, f"{run.method} {run.family}", f"{run.method} {run.family} {run.task}")
    return {name: value for key in keys for name, value in SMALL_DATA.get(key, {}).items()}


def result_file(run: Run) -> Path:
    """Where the result of a run is kept; another run, or other settings, have another file."""
    what = json.dumps([asdict(run) | {"work": ""}, asdict(SCALES[run.scale]), own_settings(run)], sort_keys=True)
    name = "_".join([run.method, run.family, run.task, str(run.seed), hashlib.sha256(what.encode()).hexdigest()[:12]])
    return Path(run.work) / "results" / f"{name}.json"


def assembled(run: Run, task: Task) -> tuple[Any, Any]:
    """The trainer and its method, from the overlays."""
    from monai.bundle import ConfigParser
    from monai.utils import set_determinism

    scale = SCALES[run.scale]
    name, network = scale.encoders[run.family]
    bundle = "endoscopy_ssl_pretraining" if task.channels == "rgb" else "ct_ssl_pretraining"
    configs = [f"bundles/{bundle}/configs/train.json", f"configs/methods/{run.method}.json", *scale.overlays]
    parser = ConfigParser()
    parser.read_config([str(ROOT / file) for file in configs])
    output = tempfile.mkdtemp(dir=run.work)
    settings = (
        scale.settings
        | own_settings(run)
        | {
            "dataset_dir": str(task.store),
            "output_dir": output,
            "encoder_name": name,
            "image_size": scale.image_size,
            "batch_size": scale.batch_size,
            "seed": run.seed,
            "knn_interval": 0,
            "tensorboard": False,
            "stop_collapsed_after": 0,
            "train#dataset#subset": task.pretrained_on.tolist(),
            "epochs": -(-run.steps // (len(task.pretrained_on) // scale.batch_size)),
        }
    )
    if network:
        settings["network_def"] = network
    if run.control == "learning rate 0":
        settings |= {"learning_rate": 0.0, "final_learning_rate": 0.0}
    for key, value in settings.items():
        parser[key] = value
    handlers = parser["train#handlers"]
    parser["train#handlers"] = [one for one in handlers if not one["_target_"].endswith(LEFT_OUT)]
    set_determinism(seed=run.seed)
    trainer = parser.get_parsed_content("train#trainer")
    method = parser.get_parsed_content("method")
    spoil(run.control, trainer, method)
    return trainer, method


def spoil(control: str, trainer: Any, method: Any) -> None:
    """Take from a run what it could learn from."""
    if control == "constant head":
        method.projection_head.register_forward_hook(lambda _module, _inputs, output: output * 0 + 1)
    elif control == "strangers as pairs":
        views = trainer.views
        trainer.views = lambda *arguments: [view.roll(number, 0) for number, view in enumerate(views(*arguments))]


def carry_out(run: Run) -> dict[str, Any]:
    """Pretrain and judge before and after, unless the work folder has the result of this very run."""
    file = result_file(run)
    if file.exists():
        return json.loads(file.read_text())
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    logging.disable(logging.WARNING)
    task = torch.load(task_file(run), weights_only=False)
    trainer, method = assembled(run, task)
    before, rank_before = task.judge(method.transfer_encoder)
    losses: list[float] = []
    from ignite.engine import Events

    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda one: losses.append(float(one.state.output[0]["loss"])))
    start = time.perf_counter()
    trainer.run()
    seconds = time.perf_counter() - start
    after, rank_after = task.judge(method.transfer_encoder)
    print(f"{run.method} ({run.family}) on {run.task}, seed {run.seed}: {before:.3f} to {after:.3f}", flush=True)
    quarter = max(len(losses) // 4, 1)
    result = asdict(run) | {
        "before": before,
        "after": after,
        "rank_before": rank_before,
        "rank_after": rank_after,
        "loss": [float(np.mean(losses[:quarter])), float(np.mean(losses[-quarter:]))],
        "steps_made": len(losses),
        "seconds": seconds,
    }
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    return result


def untrained(run: Run) -> list[float]:
    """Accuracies of encoders that were never trained."""
    task = torch.load(task_file(run), weights_only=False)
    found = []
    for seed in range(INITIALISATIONS):
        _, method = assembled(Run(**(asdict(run) | {"seed": 1000 + seed})), task)
        found.append(task.judge(method.transfer_encoder)[0])
    return found


def verdict(runs: list[dict[str, Any]], random: list[float], pixels: float) -> dict[str, Any]:
    """The gate for one method on one task.

    Args:
        runs: one per seed.
        random: accuracies of untrained encoders.
        pixels: accuracy of raw pixels.

    Returns:
        Means, the margins over both baselines with 95 % Student-t intervals over seeds, and "passed".
    """
    after = np.array([run["after"] for run in runs])
    before = np.array([run["before"] for run in runs])
    over_random, over_pixels = float(after.mean() - np.mean(random)), float(after.mean() - pixels)
    first = runs[0]
    return {
        **{key: first[key] for key in (*KEY, "steps_made")},
        "pixels": pixels,
        "random": float(np.mean(random)),
        "random_sd": float(np.std(random, ddof=1)),
        "before": before.tolist(),
        "after": after.tolist(),
        "mean": float(after.mean()),
        "interval": interval(after),
        "gain_interval": interval(after - before),
        "over_random": over_random,
        "over_pixels": over_pixels,
        "rank": [float(np.mean([run[key] for run in runs])) for key in ("rank_before", "rank_after")],
        "loss": np.mean([run["loss"] for run in runs], axis=0).tolist(),
        "seconds": float(np.mean([run["seconds"] for run in runs])),
        "passed": min(over_random, over_pixels) >= MARGIN,
    }


def interval(values: np.ndarray) -> list[float] | None:
    """95 % Student-t interval of the mean."""
    if len(values) < 2:
        return None
    half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return [float(values.mean()) - half, float(values.mean()) + half]


HEAD = (
    "| images | method | encoder | raw pixels | untrained (SD) | trained (95 %) | own gain (95 %) | rank | gate |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(one: dict[str, Any]) -> str:
    """One line of the table."""

    def span(values: list[float] | None, sign: str = "") -> str:
        return "" if values is None else f" ({values[0]:{sign}.3f} to {values[1]:{sign}.3f})"

    gain = np.mean(one["after"]) - np.mean(one["before"])
    method = f"{one['method']}, {one['control']}" if one["control"] else one["method"]
    gate = "passed" if one["passed"] else "not passed"
    wanted = one["passed"] is not bool(one["control"])
    return (
        f"| {one['task']} | {method} | {one['family']} | {one['pixels']:.3f} | {one['random']:.3f} "
        f"({one['random_sd']:.3f}) | **{one['mean']:.3f}**{span(one['interval'])} | {gain:+.3f}"
        f"{span(one['gain_interval'], '+')} | {one['rank'][0]:.0f} to {one['rank'][1]:.0f} | "
        f"{gate}{'' if wanted else ' - WRONG'} |"
    )


def environment() -> dict[str, Any]:
    """Versions, processor and load."""
    names = ("torch", "timm", "lightly", "monai", "pytorch-ignite", "numpy")
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in names},
    }


def plan(arguments: argparse.Namespace, work: str) -> list[list[Run]]:
    """Groups of runs that differ in their seed only."""
    rows = [
        (method, family, "") for method, family in ROWS if method in arguments.methods and family in arguments.families
    ]
    rows += [(*CONTROLLED, control) for control in (() if arguments.no_controls else CONTROLS)]

    def steps(method: str, family: str, task: str) -> int:
        return int(arguments.steps or usual_steps(method, family, task, arguments.scale))

    return [
        [Run(m, f, task, seed, steps(m, f, task), arguments.scale, work, control) for seed in range(arguments.seeds)]
        for task in arguments.data
        for m, f, control in rows
    ]


def usual_steps(method: str, family: str, task: str, scale: str) -> int:
    """Steps of a run unless they are given."""
    own = STEPS.get(task, STEPS["pictures"]) if scale == "cores" else {}
    return own.get(f"{method} {family}", own.get(method, SCALES[scale].steps))


def measure(arguments: argparse.Namespace, work: str) -> dict[str, Any]:
    """All runs, in a few processes; prints and writes every row as soon as it is known."""
    scale = SCALES[arguments.scale]
    pixels = {}
    for name in arguments.data:
        file = task_file(Run("", "", name, 0, 0, arguments.scale, work))
        if not file.exists():
            torch.save(TASKS[name](Path(work), arguments.images, scale.image_size), file)
        pixels[name] = found = torch.load(file, weights_only=False).pixels()
        print(f"{name}: raw pixels " + ", ".join(f"{form} {value:.3f}" for form, value in found.items()), flush=True)
    print(HEAD, flush=True)
    results = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        known = json.loads(arguments.out.read_text())["rows"] if arguments.go_on and arguments.out.exists() else []
        results += [one for one in known if "error" not in one]
        done = [[one[key] for key in KEY] for one in results if len(one["after"]) == arguments.seeds]
        groups = [one for one in plan(arguments, work) if [getattr(one[0], key) for key in KEY] not in done]
        waiting = [
            [pool.submit(untrained, group[0]), *[pool.submit(carry_out, run) for run in group]] for group in groups
        ]
        for group, (random, *runs) in zip(groups, waiting, strict=True):
            broken = next((str(one.exception()) for one in (random, *runs) if one.exception()), None)
            if broken:  # one method's crash must not hide what the others do
                results.append(asdict(group[0]) | {"work": "", "passed": False, "error": broken})
                print(f"{group[0].method} ({group[0].family}) on {group[0].task} broke off: {broken}", flush=True)
                continue
            results.append(
                verdict([one.result() for one in runs], random.result(), max(pixels[group[0].task].values()))
            )
            print(row(results[-1]), flush=True)
            report = {"environment": environment(), "margin": MARGIN, "scale": asdict(scale), "pixels": pixels}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report | {"rows": results}, indent=1) + "\n")
    return json.loads(arguments.out.read_text())


def faults(report: dict[str, Any]) -> list[str]:
    """One sentence for every method that did not pass and every control that did."""
    broken = [f"{one['method']} ({one['family']}) broke off." for one in report["rows"] if "error" in one]
    return broken + [
        f"{one['method']} ({one['family']}) {'with ' + one['control'] + ' ' if one['control'] else ''}"
        f"{'passed' if one['passed'] else 'did not pass'} on {one['task']}: {one['over_random']:+.3f} over untrained "
        f"encoders, {one['over_pixels']:+.3f} over raw pixels, margin {report['margin']}."
        for one in report["rows"]
        if "error" not in one and one["passed"] is bool(one["control"])
    ]


def image_folder(given: Path | None) -> Path | None:
    """The folder of real images: as given, as the tests have it, or none."""
    folder = given or Path(os.environ.get("SSL_TRANSFER_REAL_DATA") or ROOT.parent / "shared" / "data")
    return folder if folder.is_dir() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = list(dict.fromkeys(method for method, _ in ROWS))
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES, help="kinds of encoders")
    parser.add_argument("--data", nargs="+", choices=TASKS, help="default: pictures and slices, phantoms without them")
    parser.add_argument("--images", type=Path, help="folder of real images (default: as the tests find it)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="optimizer steps (default: the scale's)")
    parser.add_argument("--scale", choices=SCALES, default="cores")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--no_controls", action="store_true", help="leave the negative controls out")
    parser.add_argument(
        "--work",
        help="folder to keep stores and results in, which are not made again; another one after a change of the code",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--go_on", action="store_true", help="leave out what --out has results of")
    parser.add_argument("--table", action="store_true", help="print the last results, run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(
            "\n".join(
                [HEAD, *[row(one) for one in json.loads(arguments.out.read_text())["rows"] if "error" not in one]]
            )
        )
        return
    arguments.images = image_folder(arguments.images)
    arguments.data = arguments.data or (["pictures", "slices"] if arguments.images else ["phantoms"])
    if arguments.images is None and arguments.data != ["phantoms"]:
        parser.error("no real images were found: give their folder, --images, or ask for --data phantoms")
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(arguments.work or folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        report = measure(arguments, str(work))
    found = faults(report)
    print("\n".join(found) or "Every method passed, every control did not.")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
