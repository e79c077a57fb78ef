"""Commands on frozen encoders: one probe, and the order of several candidates."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from monai_ssl_transfer.cli.commands import Commands

_PROTOCOLS = ("knn", "ml_knn", "linear", "logistic", "few_shot")


def _task(arguments: argparse.Namespace) -> Any:
    from monai_ssl_transfer.evaluation.probes.task import TaskSource, refuse_unknown_settings
    from monai_ssl_transfer.evaluation.robustness_grid import parsed_settings

    data, overlays = tuple(arguments.data), tuple(arguments.config)
    task = TaskSource(arguments.bundle, data, overlays, parsed_settings(arguments.set))
    refuse_unknown_settings(task)
    return task


def _probe(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.evaluation.probes.task import encoder_source
    from monai_ssl_transfer.evaluation.probes.task_options import probe_with
    from monai_ssl_transfer.evaluation.probes.task_run import run_probe
    from monai_ssl_transfer.evaluation.robustness_grid import parsed_settings

    probe = probe_with(arguments.protocol, parsed_settings(arguments.probe_set, "--probe-set", "neighbours=[5,20]"))
    written = run_probe(
        _task(arguments),
        encoder_source(arguments.encoder),
        probe,
        arguments.out,
        arguments.seed,
        arguments.fraction,
        arguments.cache,
        arguments.device,
        arguments.average,
    )
    print((written.parent / "summary.json").read_text(encoding="utf-8") + _over_draws(written))
    print(f"{written} says how it was made")
    return 0


def _over_draws(written: Path) -> str:
    """Mean and SD of every figure where cases were drawn repeatedly; what is printed before is the first draw."""
    draws = json.loads(written.read_text(encoding="utf-8"))["draws"]
    if len(draws) < 2:
        return ""
    lines = [f"the above is the first of {len(draws)} draws; over all of them, mean (SD):\n"]
    for name in draws[0]:
        values = [float(one[name]) for one in draws]
        lines.append(f"  {name} {mean(values):.3f} ({stdev(values):.3f})\n")
    return "".join(lines)


def _rank(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.engines.embedding.cache import cache_folder
    from monai_ssl_transfer.evaluation.probes.task import encoder_source
    from monai_ssl_transfer.evaluation.probes.task_rank import rank_encoders, rank_table, write_ranking

    ranking = rank_encoders(
        _task(arguments),
        [encoder_source(text) for text in arguments.encoders],
        cache_folder(arguments.cache),
        arguments.device,
        arguments.fraction,
        arguments.seed,
        arguments.average,
    )
    written = write_ranking(ranking, arguments.out)
    print(rank_table(ranking) + f"\n{written}")
    return 0


def _add_task(parser: argparse.ArgumentParser) -> None:
    """What both commands take."""
    parser.add_argument("--bundle", required=True, metavar="NAME", help="a classification bundle")
    data = "data set, as for the bundle's training; may be left out where an overlay names it"
    parser.add_argument("--data", type=Path, nargs="+", action="extend", default=[], metavar="DIR", help=data)
    overlays = "configuration files over the bundle's, such as configs/tasks/image_folder.json"
    parser.add_argument("--config", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help=overlays)
    settings = "further settings of the bundle, such as image_size=96 or split_seed=1"
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="ID=VALUE", help=settings)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    kept = "folder of embeddings, or none (default: monai_ssl_transfer/embeddings in $XDG_CACHE_HOME or ~/.cache)"
    parser.add_argument("--cache", default="", metavar="DIR", help=kept)
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training patients (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the fraction and of what the probe draws")
    parser.add_argument("--device", default="cpu", help="where to embed, such as cuda (default: cpu)")
    averages = "volume: one row per volume, the mean of its slices' embeddings"
    parser.add_argument("--average", choices=("none", "volume"), default="none", help=averages)


def add_probe(commands: Commands) -> None:
    probe = commands.add_parser("probe", help="a frozen encoder judged on a classification task, nothing fine-tuned")
    probe.add_argument("--protocol", choices=_PROTOCOLS, default="knn", help="default: knn")
    chosen = "settings of the protocol, such as neighbours=[5,20] (docs/probes.md)"
    probe.add_argument("--probe-set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=chosen)
    one = "encoder.safetensors, another checkpoint, or scratch:resnet18"
    probe.add_argument("--encoder", required=True, metavar="FILE", help=one)
    _add_task(probe)
    probe.set_defaults(run=_probe)
    rank = commands.add_parser("rank", help="order candidate encoders for a task in minutes: kNN, LogME, H-score")
    several = "files, NAME=FILE to name them, scratch:resnet18 for random weights"
    rank.add_argument("--encoders", nargs="+", required=True, metavar="FILE", help=several)
    _add_task(rank)
    rank.set_defaults(run=_rank)
