"""What a study runs: initialisations x tasks x protocols x fractions x seeds, as plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.study.results import Cell

DATA_STEP = "data:"
"""How a step of `data` is named where a folder is wanted: ``data:frames``."""


@dataclass(frozen=True)
class DataStep:
    """Data that the study makes first: generated images, or a store to pretrain on.

    Args:
        name: of its folder below ``data/`` of the study.
        kind: "phantom_..." or "frames" or "ct".
        sources: folders that are ingested; "data:NAME" is another step's folder.
        leave_out: tasks whose test photographs are kept out.
        options: arguments of the generator or the ingest.
    """

    name: str
    kind: str
    sources: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pretraining:
    """A run of a pretraining bundle that the study makes first.

    Args:
        bundle: its name.
        data: folder of a store, or "data:NAME" of a step.
        overlays: configuration files on top of the bundle's train.json.
        settings: ids to override.
        seconds: stated cost; None: unknown until it was run.
    """

    bundle: str
    data: str
    overlays: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True)
class Initialisation:
    """Where an encoder's weights come from: random, a file, or a pretraining of this study.

    Args:
        name: in tables.
        encoder: its architecture, which chooses the network of a task.
        weights: file; None with no pretraining is random.
        pretraining: that makes the weights first.
        settings: ids to override in every task.
        tasks: that it takes part in; empty: all.
        protocols: likewise.
        reference: initialisation that it is compared with; empty: none.
    """

    name: str
    encoder: str
    weights: str | None = None
    pretraining: Pretraining | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    reference: str = ""


@dataclass(frozen=True)
class Task:
    """A data set and a question.

    Args:
        name: in tables.
        bundle: that trains and evaluates.
        data: folders; "data:NAME" is a step's.
        overlays: configuration files.
        networks: encoder -> overlay that builds the network; empty text: the bundle's own.
        settings: ids to override.
        metrics: that the study reports, first the most important one.
        primary: those of them that are tested; the others say the same of the same runs and are only shown.
        protocols: empty: all.
        fractions: of the training data.
        evaluation: ids to override in the evaluation only.
        robustness: corruptions and severities, see `evaluation/robustness_grid.py`; None: not judged.
        seconds: stated cost of one cell with all data; None: unknown until one was run.
    """

    name: str
    bundle: str
    data: tuple[str, ...]
    overlays: tuple[str, ...]
    networks: Mapping[str, str]
    settings: Mapping[str, Any]
    metrics: tuple[str, ...]
    primary: tuple[str, ...]
    protocols: tuple[str, ...]
    fractions: tuple[float, ...]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    robustness: Mapping[str, Any] | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class TransferProtocol:
    """How an encoder is put to a task: overlays of a bundle, or a probe on its frozen embeddings.

    Args:
        name: in tables.
        overlays: configuration files of a bundle protocol.
        settings: ids to override, or settings of the probe.
        probe: name in `evaluation.probes.PROBES`; empty for a bundle protocol.
        average: "volume" lets a probe judge volumes by the mean over their slices.
        fractions: to which it is limited; empty: those of the task.
        seconds: stated cost of one cell, whatever the fraction; None: that of the task.
    """

    name: str
    overlays: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    probe: str = ""
    average: str = "none"
    fractions: tuple[float, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class MetricRule:
    """How a metric is judged.

    Args:
        margin: largest difference that does not matter; None: none was stated.
        larger_is_better: else smaller is.
        spread: standard deviation between seeds that power is computed with, until the study has its own.
    """

    margin: float | None = None
    larger_is_better: bool = True
    spread: float | None = None


@dataclass(frozen=True)
class PlannedCell:
    """One run.

    Args:
        study: experiment; may be empty.
        task: its name.
        initialisation: its name.
        protocol: its name.
        fraction: of the training data.
        seed: of weights, order, augmentation and the draw of the fraction.
    """

    study: str
    task: str
    initialisation: str
    protocol: str
    fraction: float
    seed: int

    @property
    def id(self) -> str:
        """Name of the cell's folder."""
        parts = (self.study, self.task, self.initialisation, self.protocol, f"{self.fraction:g}", f"seed{self.seed}")
        return "__".join(slug(part) for part in parts if part)

    @property
    def cell(self) -> Cell:
        """The cell of the table of results, which has no seed."""
        return Cell(self.study, self.task, self.initialisation, self.protocol, self.fraction)


@dataclass(frozen=True)
class StudyPlan:
    """A whole study.

    Args:
        title: of the report.
        description: what it asks, and of whom it is a repetition.
        budget: tuning that every initialisation gets, in words.
        study: experiment name in the table; may be empty.
        seeds: one run each.
        families: columns that divide the comparisons into families; none: one family.
        metrics: name -> rule.
        data: steps that are made first, in order.
        initialisations: by name; references come first.
        tasks: by name.
        protocols: by name.
        resources: cpus, gpus and memory_gb of one cell.
        ranking: whether encoders are ranked without fine-tuning on the classification tasks.
        embeddings: whether the embeddings of the test images are drawn.
        file: YAML that it was read from.
        gpus_stated: whether the YAML says the GPUs of a cell; else one was taken where this machine has any.
    """

    title: str
    description: str
    budget: str
    study: str
    seeds: tuple[int, ...]
    families: tuple[str, ...]
    metrics: Mapping[str, MetricRule]
    data: Mapping[str, DataStep]
    initialisations: Mapping[str, Initialisation]
    tasks: Mapping[str, Task]
    protocols: Mapping[str, TransferProtocol]
    resources: Mapping[str, float]
    ranking: bool
    embeddings: bool
    file: Path
    gpus_stated: bool = True

    def share(self) -> str:
        """Return in words what a cell gets of a machine."""
        size = self.resources
        if self.gpus_stated:
            why = "stated in the file"
        elif size["gpus"]:
            why = "this machine has one; `resources: {gpus: 0}` uses none"
        else:
            why = "none here; for a cluster that has them state `resources: {gpus: 1}`"
        memory = f", {size['memory_gb']:g} GB" if size["memory_gb"] else ""
        return f"Each cell gets CPU cores: {size['cpus']:g}{memory}, GPUs: {size['gpus']:g} ({why})."

    def cells(self) -> list[PlannedCell]:
        """Return every run; all initialisations of a seed come before the next seed, so that a half-run study is fair.

        Raises:
            StudyError: two runs would share a folder.
        """
        found = [
            PlannedCell(self.study, task.name, start.name, protocol.name, fraction, seed)
            for seed in self.seeds
            for task in self.tasks.values()
            for protocol in self.protocols.values()
            if not task.protocols or protocol.name in task.protocols
            for fraction in task.fractions
            if not protocol.fractions or fraction in protocol.fractions
            for start in self.initialisations.values()
            if not start.tasks or task.name in start.tasks
            if not start.protocols or protocol.name in start.protocols
        ]
        by_id: dict[str, PlannedCell] = {}
        for one in found:
            if by_id.setdefault(one.id, one) != one:
                raise StudyError(f"{self.file} has two cells that would share the folder {one.id}: rename one of them.")
        return found


def slug(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_.") or "_"
