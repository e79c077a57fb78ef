"""The published runs of the RadNet paper (Jonske et al. 2025) as a table of results and its declaration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.declaration import (
    Comparison,
    Declaration,
    DeclaredCell,
    Family,
    Interpolation,
    Metric,
)
from monai_ssl_transfer.study.results import Cell, Results

# Codes of the authors' logs and what they stand for: their README and configurations.
INITIALISATIONS = {
    "Scratch": "scratch",
    "I1k": "ImageNet",
    "R": "RadNet-1.28M",
    "RF": "RadNet-12M",
    "IxRS": "ImageNet, then RadNet",
    "IxRM": "ImageNet and RadNet mixed",
}
TASKS = {
    "R": ("body region", 1.0),
    "RS": ("body region", 0.1),
    "RXS": ("body region", 0.01),
    "RXXS": ("body region", 0.001),
    "I1k": ("ImageNet-1k", 1.0),
    "I1kS": ("ImageNet-1k", 0.1),
    "I1kXS": ("ImageNet-1k", 0.01),
    "I100": ("ImageNet-100", 1.0),
    "I100S": ("ImageNet-100", 0.1),
    "I100XS": ("ImageNet-100", 0.01),
    "I10": ("ImageNet-10", 1.0),
    "I10S": ("ImageNet-10", 0.1),
    "I10XS": ("ImageNet-10", 0.01),
    "LiTS": ("LiTS", 1.0),
    "LiTSM": ("LiTS", 0.5),
    "LiTSS": ("LiTS", 0.1),
    "BraTS": ("BraTS", 1.0),
    "BraTSM": ("BraTS", 0.5),
    "BraTSS": ("BraTS", 0.1),
    "CX8": ("ChestX-ray8", 1.0),
    "CX8M": ("ChestX-ray8", 0.5),
    "CX8S": ("ChestX-ray8", 0.1),
}
METRICS = {
    "body region": {"acc": "accuracy"},
    "ImageNet-1k": {"acc": "accuracy"},
    "ImageNet-100": {"acc": "accuracy"},
    "ImageNet-10": {"acc": "accuracy"},
    "LiTS": {"dice_avg_class_1": "liver Dice", "dice_avg_class_2": "tumour Dice"},
    # By the order in which the authors' code stacks the channels; their plots name the last two the other way round.
    "BraTS": {
        "dice_avg_class_1": "enhancing tumour Dice",
        "dice_avg_class_2": "whole tumour Dice",
        "dice_avg_class_3": "tumour core Dice",
    },
    "ChestX-ray8": {"auc_avg_overall": "macro AUROC"},
}
FINE_TUNING = "fine-tuning"
LINEAR = "linear evaluation"
NOISES = {"5": "1e-5", "4": "1e-4", "3": "1e-3", "25e3": "2.5e-3", "5e3": "5e-3", "2": "1e-2", "25e2": "2.5e-2"}
NOISES["5e2"] = "5e-2"
_EXPERIMENT_TASKS = {
    "E1": ("R", "I1k", "LiTS", "BraTS", "CX8"),
    "E4": ("R", "I1k", "LiTS", "BraTS", "CX8"),
    "E2": tuple(code for code, (_, fraction) in TASKS.items() if fraction < 1 or code in ("I100", "I10")),
    "E6": ("R", "I1k"),
    "E8": ("R", "I1k"),
    "E3": ("I1k", "R", "LiTS", "BraTS", "CX8"),
}
_EXPERIMENT_INITIALISATIONS = {
    "E1": ("Scratch", "I1k", "R", "RF"),
    "E4": ("I1k", "R", "RF"),
    "E2": ("Scratch", "I1k", "R", "RF"),
    "E6": ("I1k", "R", "IxRS", "IxRM"),
    "E8": ("I1k", "R", "IxRS", "IxRM"),
    "E3": ("Scratch", "I1k", "R", "RF"),
}
_DESCRIPTIONS = {
    "E1": "full fine-tuning, all labels",
    "E4": "linear evaluation: the encoder is frozen; in segmentation the decoder still trains",
    "E2": "fine-tuning with fewer labels or classes",
    "E6": "mixed-domain pretraining, fine-tuning",
    "E8": "mixed-domain pretraining, linear evaluation",
    "E3": "fine-tuning with noise on the training images, one run per cell",
}
_NOTES = (
    "Seeds are numbered 0 to 3: the authors' base run (42) and its repetitions _f1, _f2 and _f3. The ImageNet and "
    "RadNet-1.28M runs of E6 and E8 are those of E1 and E4 once more.",
    "The families below were declared for this report, after the runs; the authors corrected nothing.",
    "Body region with 1 % of the labels is no sound cell: it reaches 62 % where a tenth of these labels reaches 90 %, "
    "for every initialisation, so that its training set was hardly a representative sample.",
    "Dice is that of the authors: pooled over batches of 128 slices, not per volume. Cases are not published, so that "
    "nothing here says how far the results hold for other patients.",
    "The paper's abstract compares an interpolated population with ImageNet, not runs; both are printed below.",
)
_KEY = re.compile(r"(E\d)\|PT_(?:SimCLR_)?([A-Za-z0-9]+)_FT_([A-Za-z0-9]+?)(?:_(lineval)|_noise(\w+))?")
_RUN = re.compile(r".*?(?:_f([1-3]))?")


def is_radnet(content: Any) -> bool:
    """Whether a JSON file's content looks like the published runs."""
    return isinstance(content, dict) and bool(content) and all(_KEY.fullmatch(str(key)) for key in content)


def read_radnet(file: Path) -> tuple[Results, Declaration]:
    """Read the published runs.

    Args:
        file: JSON of "experiment|run name" -> list of (run, metric -> value).

    Raises:
        DataError: the file is not there, is damaged or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: give the file of the published runs.") from error
    if not is_radnet(content):
        raise DataError(f'{file} does not hold runs named like "E1|PT_SimCLR_I1k_FT_LiTS": give a file of RadNet runs.')
    try:
        rows = [row for key, runs in content.items() for row in _rows(key, runs)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{file} has a run that cannot be read ({error}): give the file as it was published."
        ) from error
    return Results.of_rows(rows, str(file)), radnet_declaration()


def _rows(key: str, runs: list[tuple[str, dict[str, float]]]) -> Iterator[dict[str, Any]]:
    cell = _cell(key)
    names = METRICS[cell.task]
    for run, metrics in runs:
        found = _RUN.fullmatch(run)
        seed = int(found[1]) if found and found[1] else 0
        for metric, value in metrics.items():
            yield {
                **vars(cell),
                "seed": seed,
                "case": "",
                "group": "",
                "metric": names.get(metric, metric),
                "value": float(value),
            }


def _cell(key: str) -> Cell:
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError(key)
    experiment, initialisation, task, linear, noise = found.groups()
    return _declared(experiment, task, initialisation, LINEAR if linear else None, noise)


def _declared(experiment: str, task: str, code: str, protocol: str | None = None, noise: str | None = None) -> Cell:
    name, fraction = TASKS[task]
    if protocol is None:
        protocol = f"{FINE_TUNING}, training noise {NOISES[noise]}" if noise else FINE_TUNING
    return Cell(experiment, name, INITIALISATIONS[code], protocol, fraction)


def radnet_declaration() -> Declaration:
    """Return the paper's matrix, and the families of comparisons with ImageNet that this report corrects."""
    cells = tuple(_declared_cells())
    single = tuple(one for one in cells if one.cell.study in ("E1", "E4", "E2"))
    radnets = ("RadNet-1.28M", "RadNet-12M")
    everything = _against_imagenet(single, radnets)
    ct = tuple(one for one in everything if one.candidate.task in ("body region", "LiTS"))
    mixed = _against_imagenet(
        tuple(one for one in cells if one.cell.study in ("E6", "E8")), tuple(INITIALISATIONS.values())
    )
    families = (
        Family(
            "all tasks", "both RadNet encoders against ImageNet in every declared metric of E1, E4 and E2", everything
        ),
        Family("CT tasks", "the same for body region and LiTS alone", ct),
        Family("mixed-domain pretraining", "every other encoder of E6 and E8 against ImageNet", mixed),
    )
    headline = tuple(
        one
        for one in ct
        if one.candidate.task == "body region" and (one.candidate.study != "E2" or one.candidate.fraction < 0.1)
    )
    metrics = dict.fromkeys(name for names in METRICS.values() for name in names.values())
    return Declaration(
        title="RadNet: the published runs",
        source="Jonske et al., Computer Methods and Programs in Biomedicine 261:108634, 2025: test logs of every run",
        metrics=tuple(Metric(name, 100.0, "%", "points") for name in metrics),
        cells=cells,
        families=families,
        headline=headline,
        interpolations=(
            Interpolation("RLB synthetic (x1.136)", radnets, (1281167, 12034617), 1281167 * 1.136),
            Interpolation("RUB synthetic (x3.807)", radnets, (1281167, 12034617), 1281167 * 3.807),
        ),
        descriptions=_DESCRIPTIONS,
        notes=_NOTES,
    )


def _declared_cells() -> Iterator[DeclaredCell]:
    for experiment, tasks in _EXPERIMENT_TASKS.items():
        protocol = LINEAR if experiment in ("E4", "E8") else None
        noises = tuple(NOISES) if experiment == "E3" else (None,)
        for task in tasks:
            for code in _EXPERIMENT_INITIALISATIONS[experiment]:
                for noise in noises:
                    cell = _declared(experiment, task, code, protocol, noise)
                    seeds = (0,) if noise else (0, 1, 2, 3)
                    yield DeclaredCell(cell, tuple(METRICS[cell.task].values()), seeds)


def _against_imagenet(cells: tuple[DeclaredCell, ...], candidates: tuple[str, ...]) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(one.cell, replace(one.cell, initialisation="ImageNet"), metric)
        for one in cells
        if one.cell.initialisation in candidates and one.cell.initialisation != "ImageNet"
        for metric in one.metrics
    )
