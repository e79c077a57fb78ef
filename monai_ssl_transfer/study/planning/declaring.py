"""The declaration of a planned study, written before its runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from monai_ssl_transfer.study.declaration import Comparison, Declaration, DeclaredCell, Family, Metric
from monai_ssl_transfer.study.planning.known_settings import judges_what_chose_its_epoch
from monai_ssl_transfer.study.planning.matrix import StudyPlan
from monai_ssl_transfer.study.results import Cell

_DIGITS = 4


def declare_plan(plan: StudyPlan) -> Declaration:
    """Declare all cells of a plan, and every initialisation against its reference in every setting.

    Tested are the primary metrics: Dice and IoU of one run are one finding, and would be two in a family.

    Args:
        plan: the study.
    """
    seeds: dict[Cell, list[int]] = defaultdict(list)
    for one in plan.cells():
        seeds[one.cell].append(one.seed)
    cells = tuple(DeclaredCell(cell, plan.tasks[cell.task].metrics, tuple(found)) for cell, found in seeds.items())
    families: dict[tuple[str, ...], list[Comparison]] = defaultdict(list)
    shown = []
    for comparison in _comparisons(plan, list(seeds)):
        if comparison.metric in plan.tasks[comparison.candidate.task].primary:
            families[_family_of(comparison, plan.families)].append(comparison)
        else:
            shown.append(comparison)
    metrics = tuple(
        Metric(name, digits=_DIGITS, larger_is_better=rule.larger_is_better, margin=rule.margin)
        for name, rule in plan.metrics.items()
    )
    return Declaration(
        title=plan.title,
        source=plan.description or plan.file.name,
        metrics=metrics,
        cells=cells,
        families=tuple(
            Family(", ".join(key) or "all", _about(key, plan.families), tuple(found)) for key, found in families.items()
        ),
        shown=tuple(shown),
        notes=(
            "Declared before the runs.",
            f"Tuning budget, the same for every initialisation: {plan.budget}",
            *(
                f"{task.name}: it has no test part, so the epoch was chosen on the cases that are judged, for "
                "every initialisation alike; its values are too good, and its trained protocols gain on its probes."
                for task in plan.tasks.values()
                if judges_what_chose_its_epoch(task)
            ),
        ),
    )


def _comparisons(plan: StudyPlan, cells: list[Cell]) -> list[Comparison]:
    """Every cell against the same cell of its reference, if the plan has that one."""
    found = []
    for cell in cells:
        reference = plan.initialisations[cell.initialisation].reference
        other = replace(cell, initialisation=reference)
        if reference and other in cells:
            found += [Comparison(cell, other, metric) for metric in plan.tasks[cell.task].metrics]
    return found


def _family_of(comparison: Comparison, columns: tuple[str, ...]) -> tuple[str, ...]:
    cell = comparison.candidate
    values = {"task": cell.task, "protocol": cell.protocol, "initialisation": cell.initialisation}
    values |= {"fraction": f"{cell.fraction:.4g} of the labels", "metric": comparison.metric}
    return tuple(values[column] for column in columns)


def _about(key: tuple[str, ...], columns: tuple[str, ...]) -> str:
    within = f" within {', '.join(columns)} {', '.join(key)}" if columns else ""
    what = f"every initialisation against its reference in every setting and primary metric{within}"
    return f"{what}; declared before the runs"
