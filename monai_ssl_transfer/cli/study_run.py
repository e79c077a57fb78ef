"""``ssl-transfer study plan`` and ``study run``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_ssl_transfer.cli.commands import Commands
    from monai_ssl_transfer.study.planning.cost import MetricPower
    from monai_ssl_transfer.study.planning.matrix import PlannedCell, StudyPlan


def _plan(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.study.planning.plan import write_plan

    plan = _read(arguments)
    if arguments.pilot and arguments.out is None:
        raise _no_folder(arguments.study)
    if arguments.pilot:
        _pilot(plan, arguments)
    cost, power = write_plan(plan, arguments.out, dict(arguments.sd))
    _print_cells(plan)
    print("\n".join([plan.share(), *cost.sentences(plan.resources)]))
    for one in power:
        print(_power_sentence(one, len(plan.seeds)))
    print(f"Tuning budget, the same for every initialisation: {plan.budget}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from monai_ssl_transfer.execution import executor
    from monai_ssl_transfer.study.planning.plan import declare_before_runs, only_run, write_plan
    from monai_ssl_transfer.study.running.runner import StudyRun, copy_study_file, remove_unplanned

    plan, out = _read(arguments), arguments.out
    workers = executor(arguments.executor, arguments.workers, arguments.address, log_dir=out / "logs")
    if arguments.dry:
        return _dry(StudyRun(plan, out, workers, _tell, any_code=arguments.any_code))
    with only_run(out):
        declare_before_runs(plan, out)
        copy_study_file(plan, out)
        write_plan(plan, out, {})
        logger = _mlflow(plan, arguments)
        for name in remove_unplanned(plan, out):
            _tell(f"{name} is in the folder and not in the plan: it is left out of the results")
        summary = StudyRun(plan, out, workers, _tell, logger, arguments.any_code).run()
        write_plan(plan, out, {})
    print(summary.sentence())
    for name, reason in summary.failed.items():
        print(f"  {name}: {reason}")
    print(f"next: ssl-transfer study report {out}")
    return 1 if summary.failed else 0


def _pilot(plan: StudyPlan, arguments: argparse.Namespace) -> None:
    """Run one cell per task and protocol (of the reference, with the largest fraction) for each of the first seeds."""
    from monai_ssl_transfer.execution import executor
    from monai_ssl_transfer.study.planning.plan import declare_before_runs, only_run, write_plan
    from monai_ssl_transfer.study.running.runner import StudyRun, copy_study_file

    chosen: dict[tuple[str, str, int], PlannedCell] = {}
    for cell in plan.cells():
        if cell.seed in plan.seeds[: arguments.pilot]:
            key = cell.task, cell.protocol, cell.seed
            if key not in chosen or cell.fraction > chosen[key].fraction:
                chosen[key] = cell
    workers = executor(arguments.executor, arguments.workers, arguments.address, log_dir=arguments.out / "logs")
    with only_run(arguments.out):
        declare_before_runs(plan, arguments.out)
        copy_study_file(plan, arguments.out)
        write_plan(plan, arguments.out, {})
        print(StudyRun(plan, arguments.out, workers, _tell).run(chosen.values()).sentence())


def _dry(run: object) -> int:
    from monai_ssl_transfer.study.running.runner import StudyRun

    if isinstance(run, StudyRun):
        for cell in run.plan.cells():
            start = run.plan.initialisations[cell.initialisation]
            encoder = run.specs.encoder_file(start)
            waits = start.pretraining is not None and (encoder is None or not encoder.is_file())
            print(f"{cell.id}: {'to run, after its pretraining' if waits else run.state(cell)[0]}")
    return 0


def _read(arguments: argparse.Namespace) -> StudyPlan:
    from monai_ssl_transfer.study.planning.study_file import read_study
    from monai_ssl_transfer.study.planning.variables import settings_of

    return read_study(arguments.study, settings_of(arguments.set))


def _mlflow(plan: StudyPlan, arguments: argparse.Namespace):  # type: ignore[no-untyped-def]
    if not arguments.mlflow:
        return None
    from monai_ssl_transfer.study.running.mlflow_log import MlflowLog

    return MlflowLog(plan, arguments.out, arguments.mlflow)


def _print_cells(plan: StudyPlan) -> None:
    for name, task in plan.tasks.items():
        own = [cell for cell in plan.cells() if cell.task == name]
        fractions = ", ".join(f"{one:g}" for one in task.fractions)
        protocols = ", ".join(dict.fromkeys(cell.protocol for cell in own))
        starts = ", ".join(dict.fromkeys(cell.initialisation for cell in own))
        print(f"{name}: {len(own)} cells ({task.bundle}): {starts}; {protocols}; fractions {fractions}")


def _power_sentence(one: MetricPower, seeds: int) -> str:
    if not math.isfinite(one.difference):
        return f"{one.metric}: no statement on power with {seeds} seeds (spread {one.basis})."
    return (
        f"{one.metric}: with {seeds} seeds and a spread of {one.spread:.4f} ({one.basis}) a true difference of "
        f"{one.difference:.4f} is found with 80 % probability; at Holm's hardest step {one.corrected:.4f}."
    )


def _no_folder(study: Path) -> Exception:
    from monai_ssl_transfer.errors import StudyError

    return StudyError(f"--pilot runs cells of {study} and keeps them: name the study's folder with --out.")


def _spread(text: str) -> tuple[str, float]:
    metric, found, value = text.rpartition("=")
    if not found or not float(value) > 0:
        raise ValueError(text)
    return metric, float(value)


def _tell(sentence: str) -> None:
    print(sentence, flush=True)


def add_plan_and_run(kinds: Commands) -> None:
    """Add both commands to those of ``ssl-transfer study``."""
    plan = kinds.add_parser("plan", help="cells, cost and power of a study, before it is run")
    _common(plan)
    plan.add_argument("--out", type=Path, default=None, metavar="DIR", help="folder whose finished cells tell the cost")
    pilot = "first run one cell per task and protocol, for each of the first N seeds (default: 1; 2 show the spread)"
    plan.add_argument("--pilot", type=int, nargs="?", const=1, default=0, metavar="N", help=pilot)
    sd = "standard deviation between seeds to compute power with; can be repeated"
    plan.add_argument("--sd", action="append", type=_spread, default=[], metavar="METRIC=VALUE", help=sd)
    plan.set_defaults(run=_plan)
    run = kinds.add_parser("run", help="run a study; what is finished is kept, so run it again after any interruption")
    _common(run)
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    run.add_argument("--dry", action="store_true", help="only tell what would be kept and what would be run")
    kept = "keep what was run by another state of the package's code (default: run it again); the report tells"
    run.add_argument("--any-code", action="store_true", help=kept)
    tracked = "one run per cell: a server's address, or sqlite:///FILE (extra: study)"
    run.add_argument("--mlflow", default="", metavar="URI", help=tracked)
    run.set_defaults(run=_run)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="YAML", help="such as configs/studies/smoke.yaml")
    value = "value of a variable of the file, such as data.root=/data; can be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=value)
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help="default: local")
    parser.add_argument(
        "--workers", type=int, default=None, metavar="N", help="cells at a time (default: one per core)"
    )
    parser.add_argument("--address", default=None, metavar="A", help="of a Ray cluster, such as auto")
