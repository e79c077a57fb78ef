"""Settings of a study file against the bundles that they are for: MONAI takes any id and says nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from monai_ssl_transfer.engines.bundle_settings import ids_of, unknown_setting
from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.installation import project_folder
from monai_ssl_transfer.study.planning.matrix import StudyPlan, Task


def refuse_unknown_settings(plan: StudyPlan) -> None:
    """Check the first part of every id that a study overrides.

    Args:
        plan: the study.

    Raises:
        StudyError: neither the bundle nor an overlay has such an id.
    """
    for task in plan.tasks.values():
        protocols = [one for one in plan.protocols.values() if not one.probe]
        overlays = [
            *task.overlays,
            *filter(None, task.networks.values()),
            *(f for one in protocols for f in one.overlays),
        ]
        known = _ids([_config(task.bundle, "train"), *overlays])
        _check(f"{plan.file}: task {task.name}", task.bundle, task.settings, known)
        for one in protocols:
            _check(f"{plan.file}: protocol {one.name}", task.bundle, one.settings, known)
        _check(
            f"{plan.file}: evaluation of {task.name}",
            task.bundle,
            task.evaluation,
            known | _ids([_config(task.bundle, "evaluate")]),
        )
    for start in plan.initialisations.values():
        if (run := start.pretraining) is not None:
            known = _ids([_config(run.bundle, "train"), *run.overlays])
            _check(f"{plan.file}: pretraining of {start.name}", run.bundle, run.settings, known)


def judges_what_chose_its_epoch(task: Task) -> bool:
    """Whether a task has no test part, so that the kept epoch was chosen on the cases that are judged."""
    if "test_fraction" not in _ids([_config(task.bundle, "train")]):
        return True
    evaluation = json.loads((project_folder() / _config(task.bundle, "evaluate")).read_text(encoding="utf-8"))
    settings: dict[str, Any] = {"evaluate_part": evaluation.get("evaluate_part"), **task.settings, **task.evaluation}
    if settings["evaluate_part"] is not None or settings.get("test_cases"):
        return bool(settings["evaluate_part"] == "validation")
    return bool(settings.get("train_cases")) or settings.get("test_fraction") == 0


def _config(bundle: str, name: str) -> str:
    return f"bundles/{bundle}/configs/{name}.json"


def _ids(files: Iterable[str]) -> set[str]:
    return ids_of(project_folder() / file for file in files)


def _check(where: str, bundle: str, settings: Mapping[str, Any], known: set[str]) -> None:
    if unknown := unknown_setting(settings, known):
        name, near = unknown
        hint = f"did you mean {near}?" if near else f"see bundles/{bundle}/configs/train.json."
        raise StudyError(f"{where} sets '{name}', which {bundle} does not have: {hint}")
