"""A study's YAML file as a `StudyPlan`; whatever it names must be there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_ssl_transfer.study.planning.gpus_here import gpus_here
from monai_ssl_transfer.study.planning.known_settings import refuse_unknown_settings
from monai_ssl_transfer.study.planning.matrix import (
    DATA_STEP,
    DataStep,
    Initialisation,
    MetricRule,
    StudyPlan,
    Task,
)
from monai_ssl_transfer.study.planning.named_files import named_folder, named_fractions
from monai_ssl_transfer.study.planning.named_initialisations import read_initialisations
from monai_ssl_transfer.study.planning.named_tasks import need_networks, read_protocol, read_task
from monai_ssl_transfer.study.planning.strict_yaml import StrictSection, read_strict_yaml
from monai_ssl_transfer.study.planning.variables import fill_in

DATA_KINDS = (
    "phantom_endoscopy",
    "phantom_kvasir_seg",
    "phantom_giana",
    "phantom_hyperkvasir",
    "phantom_ct",
    "frames",
    "ct",
)
FAMILY_COLUMNS = ("task", "protocol", "fraction", "metric", "initialisation")


def read_study(file: Path, given: Mapping[str, str] | None = None) -> StudyPlan:
    """Read a study.

    Args:
        file: YAML, see docs/studies.md.
        given: values of its variables, before those of the environment and of the file.

    Raises:
        StudyError: one sentence with file, line and key: an unknown key, a wrong type, a file, bundle, protocol or
            variable that is not there.
    """
    top = read_strict_yaml(file)
    fill_in(top, given or {})
    encoder = top.take("encoder", str, "")
    data = {name: _data_step(name, part) for name, part in top.section("data", required=False).sections().items()}
    protocols = {name: read_protocol(name, top.section("protocols")) for name in top.section("protocols").content}
    fractions = named_fractions(top, (1.0,))
    initialisations = read_initialisations(top, encoder, data, tuple(protocols))
    tasks = {
        name: read_task(name, part, fractions, data, protocols, initialisations)
        for name, part in top.section("tasks").sections().items()
    }
    _refuse_unknown_tasks(top, data, initialisations, tasks)
    plan = StudyPlan(
        title=top.take("title", str),
        description=top.take("description", str, "").strip(),
        budget=top.take("budget", str).strip(),
        study=top.take("study", str, ""),
        seeds=_seeds(top),
        families=_families(top),
        metrics=_metrics(top, tasks),
        data=data,
        initialisations=initialisations,
        tasks=tasks,
        protocols=protocols,
        resources=_resources(top),
        ranking=top.take("ranking", bool, False),
        embeddings=top.take("embeddings", bool, False),
        file=file,
        gpus_stated="gpus" in top.section("resources", required=False).content,
    )
    top.done()
    _need_fractions(top, plan)
    if not plan.cells():
        raise top.error("has no cell: no task, protocol and initialisation go together")
    need_networks(top, plan)
    refuse_unknown_settings(plan)
    return plan


def _data_step(name: str, part: StrictSection) -> DataStep:
    kind = part.take("kind", str)
    if kind not in DATA_KINDS:
        raise part.error(f"has the kind '{kind}': choose one of {', '.join(DATA_KINDS)}", "kind")
    sources = part.texts("sources", ())
    if kind in ("frames", "ct") and not sources:
        raise part.error("has no sources: name the folders to ingest")
    found = tuple(
        one if one.startswith(DATA_STEP) else named_folder(part, one, "sources", {}) for one in sources
    )  # an earlier step is checked where steps are ordered
    step = DataStep(name, kind, found, part.texts("leave_out", ()), dict(part.take("options", dict, {})))
    part.done()
    return step


def _refuse_unknown_tasks(
    top: StrictSection,
    data: Mapping[str, DataStep],
    initialisations: Mapping[str, Initialisation],
    tasks: Mapping[str, Task],
) -> None:
    for key, named in (("data", data), ("initialisations", initialisations)):
        for name, one in named.items():
            listed = one.leave_out if isinstance(one, DataStep) else one.tasks
            unknown = next((task for task in listed if task not in tasks), None)
            if unknown is not None:
                part = top.section(key).section(name)
                raise part.error(f"names the task '{unknown}': known are {', '.join(tasks)}")


def _need_fractions(top: StrictSection, plan: StudyPlan) -> None:
    """Refuse a protocol that is limited to a share of the labels which no task of it has: nothing would be run."""
    for protocol in plan.protocols.values():
        tasks = [one for one in plan.tasks.values() if not one.protocols or protocol.name in one.protocols]
        known = {fraction for task in tasks for fraction in task.fractions}
        absent = next((one for one in protocol.fractions if one not in known), None)
        if absent is not None:
            part = top.section("protocols").section(protocol.name)
            raise part.error(f"has the fraction {absent:g}, which none of its tasks has: add it there", "fractions")


def _seeds(top: StrictSection) -> tuple[int, ...]:
    found = top.take("seeds", list)
    if not found or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in found):
        raise top.error("needs seeds as a list of whole numbers from 0 on, such as [0, 1, 2]", "seeds")
    if len(set(found)) < len(found):
        raise top.error("has a seed twice: a seed is one run", "seeds")
    return tuple(found)


def _families(top: StrictSection) -> tuple[str, ...]:
    found = top.texts("families", ())
    unknown = next((one for one in found if one not in FAMILY_COLUMNS), None)
    if unknown is not None:
        raise top.error(f"divides families by '{unknown}': choose among {', '.join(FAMILY_COLUMNS)}", "families")
    return found


def _metrics(top: StrictSection, tasks: Mapping[str, Task]) -> dict[str, MetricRule]:
    margins, spreads = _numbers(top, "margin"), _numbers(top, "spread")
    small = top.texts("smaller_is_better", ())
    names = list(dict.fromkeys(metric for task in tasks.values() for metric in task.metrics))
    for key, listed in (("margin", margins), ("spread", spreads), ("smaller_is_better", small)):
        unknown = next((one for one in listed if one not in names), None)
        if unknown is not None:
            raise top.error(f"has '{unknown}' under '{key}', which is no metric of a task: known are {names}", key)
    tested = {metric for task in tasks.values() for metric in task.primary}
    untested = next((one for one in margins if one not in tested), None)
    if untested is not None:
        sentence = f"has a margin of '{untested}', which is not tested: name it under 'primary' of a task"
        raise top.error(sentence, "margin")
    return {name: MetricRule(margins.get(name), name not in small, spreads.get(name)) for name in names}


def _numbers(top: StrictSection, key: str) -> dict[str, float]:
    part = top.section(key, required=False)
    found = {name: part.take(name, float) for name in part.content}
    wrong = next((name for name, value in found.items() if not value > 0), None)
    if wrong is not None:
        raise part.error(f"has {wrong}: {found[wrong]:g}, which must be above 0", wrong)
    return found


def _resources(top: StrictSection) -> dict[str, float]:
    part = top.section("resources", required=False)
    found: dict[str, Any] = {
        "cpus": part.take("cpus", float, 1.0),
        "gpus": part.take("gpus", float) if "gpus" in part.content else float(min(1, gpus_here())),
        "memory_gb": part.take("memory_gb", float, 0.0),
    }
    part.done()
    return found
