"""``ssl-transfer study run``: everything of a plan that is not there yet, on any executor; interrupted ones go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError, StudyError
from monai_ssl_transfer.execution import Executor, Job, Outcome
from monai_ssl_transfer.study.cell_values import values_of
from monai_ssl_transfer.study.planning.identity import changed_parts
from monai_ssl_transfer.study.planning.matrix import DATA_STEP, DataStep, Initialisation, PlannedCell, StudyPlan, slug
from monai_ssl_transfer.study.planning.specs import Spec, Specs
from monai_ssl_transfer.study.records import read_record, write_record
from monai_ssl_transfer.study.results import RESULTS_NAME, Results, write_results
from monai_ssl_transfer.study.running.cell_run import CELL_FILE, cell_record
from monai_ssl_transfer.study.running.data_steps import DONE_FILE

Tell = Callable[[str], None]
CellDone = Callable[[PlannedCell, Mapping[str, Any], list[dict[str, Any]]], None]
"""Called with a cell, its record and its values, once per cell that was run."""

_MAKE_DATA = "monai_ssl_transfer.study.running.data_steps:make_data"
_PRETRAIN = "monai_ssl_transfer.study.running.pretraining_run:run_pretraining"
_RUN_CELL = "monai_ssl_transfer.study.running.cell_run:run_cell"
_RANK = "monai_ssl_transfer.study.running.embedding_jobs:rank_task"
_DRAW = "monai_ssl_transfer.study.running.embedding_jobs:draw_embeddings"
ERROR_FILE = "error.txt"
"""Traceback of a job that failed, in its folder."""


@dataclass
class RunSummary:
    """What came of a run.

    Args:
        kept: cells that were there.
        done: cells that were run.
        failed: cell or step -> why.
    """

    kept: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        """Return it in words."""
        kept = f", {len(self.kept)} kept from before" if self.kept else ""
        return f"{len(self.done)} cells run{kept}, {len(self.failed)} failed."


class StudyRun:
    """One run of a study's plan.

    Args:
        plan: the study.
        out: its folder.
        executor: runs the jobs.
        tell: gets a line about everything that happens.
        cell_done: see `CellDone`.
        any_code: whether what another code of the package made is kept.
    """

    def __init__(
        self,
        plan: StudyPlan,
        out: Path,
        executor: Executor,
        tell: Tell,
        cell_done: CellDone | None = None,
        any_code: bool = False,
    ) -> None:
        self.plan = plan
        self.out = out.absolute()
        self.specs = Specs(plan, out, any_code)
        self.summary = RunSummary()
        self._executor = executor
        self._tell = tell
        self._cell_done = cell_done

    def run(self, cells: Iterable[PlannedCell] | None = None) -> RunSummary:
        """Run what is not there yet, in the order: data, pretraining and cells without one, other cells, embeddings.

        Args:
            cells: some of the plan's cells; None: all.
        """
        wanted = self.plan.cells() if cells is None else list(cells)
        try:
            self._make_data()
            names = dict.fromkeys(cell.initialisation for cell in wanted)
            waiting = [one for name in names if (one := self.plan.initialisations[name]).pretraining is not None]
            later = {one.name for one in waiting}
            first = [cell for cell in wanted if cell.initialisation not in later]
            self._run([*self._pretraining_jobs(waiting), *self._cell_jobs(first)])
            self._run(self._cell_jobs([cell for cell in wanted if cell.initialisation in later]))
            if cells is None:
                self._run(self._embedding_jobs())
        finally:
            self.collect()
        return self.summary

    def collect(self) -> Results | None:
        """Write results.parquet of all cells of the plan that are done, in the plan's order; None without any."""
        rows: list[dict[str, Any]] = []
        for cell in self.plan.cells():
            if (read_record(self._record(cell)) or {}).get("status") != "done":
                continue
            if (word := self.state(cell)[0]) != "kept":  # done by an earlier plan or by other code
                self._tell(f"{cell.id} is left out of the results ({word}).")
                continue
            own = self._values(cell)
            absent = [
                metric for metric in self.plan.tasks[cell.task].metrics if metric not in {r["metric"] for r in own}
            ]
            if own and absent:
                known = ", ".join(dict.fromkeys(row["metric"] for row in own))
                self._tell(f"{cell.id} has no {', '.join(absent)}, which the study declares: it has {known}.")
            rows += own
        if not rows:
            return None
        results = Results.of_rows(rows, str(self.out / RESULTS_NAME))
        write_results(results, self.out / RESULTS_NAME)
        return results

    def state(self, cell: PlannedCell) -> tuple[str, Spec | None]:
        """Tell what is to be done with a cell: "kept", "to run", "again: ..." or why it cannot be run.

        Returns:
            The word, and the arguments of its job unless it is kept or cannot be run.
        """
        start = self.plan.initialisations[cell.initialisation]
        encoder = self.specs.encoder_file(start)
        if start.pretraining is not None and (encoder is None or not self._is_done(self.specs.pretraining(start))):
            why = self.summary.failed.get(f"pretraining {start.name}", "it was not run")
            return f"its pretraining is not there: {why}", None
        spec = self.specs.cell(cell)
        record = read_record(self._record(cell))
        if record is None:
            return "to run", spec
        if record.get("status") != "done":
            return f"again: it failed before ({record.get('reason', '')})", spec
        changed = changed_parts(record.get("identity"), spec["identity"], self.specs.any_code)
        return (f"again: changed {', '.join(changed)}", spec) if changed else ("kept", None)

    def _record(self, cell: PlannedCell) -> Path:
        return self.out / "cells" / cell.id / CELL_FILE

    def _values(self, cell: PlannedCell) -> list[dict[str, Any]]:
        try:
            return values_of(self.out / "cells" / cell.id)
        except DataError as error:
            self._tell(f"{cell.id} is left out: {error}")
            return []

    def _job(self, name: str, function: str, spec: Spec) -> Job:
        size = self.plan.resources
        gpus = 0.0 if function == _MAKE_DATA else size["gpus"]
        return Job(name, function, spec, size["cpus"], gpus, size["memory_gb"])

    def _is_done(self, spec: Spec) -> bool:
        record = read_record(Path(spec["folder"]) / DONE_FILE) or {}
        return not changed_parts(record.get("identity"), spec["identity"], self.specs.any_code)

    def _make_data(self) -> None:
        """Make data steps level by level: a step comes after those that it takes from or leaves out."""
        left = dict(self.plan.data)
        while left:
            ready = [step for step in left.values() if not self._before(step) & set(left)]
            if not ready:
                raise StudyError(f"{self.plan.file}: the data steps {', '.join(left)} wait for each other: undo that.")
            specs = {step.name: self.specs.data_step(step) for step in ready}
            todo = {name: spec for name, spec in specs.items() if not self._is_done(spec)}
            for name in todo:
                (self.out / "data" / slug(name) / DONE_FILE).unlink(missing_ok=True)
            failed = self._run([self._job(f"data {name}", _MAKE_DATA, spec) for name, spec in todo.items()])
            if failed:
                raise StudyError(f"{failed[0].job.id} could not be made: {self.summary.failed[failed[0].job.id]}")
            for step in ready:
                del left[step.name]

    def _before(self, step: DataStep) -> set[str]:
        sources = [*step.sources, *(one for task in step.leave_out for one in self.plan.tasks[task].data)]
        return {one[len(DATA_STEP) :].split("/", 1)[0] for one in sources if one.startswith(DATA_STEP)}

    def _pretraining_jobs(self, waiting: Iterable[Initialisation]) -> Iterator[Job]:
        for start in waiting:
            spec = self.specs.pretraining(start)
            if not self._is_done(spec):
                yield self._job(f"pretraining {start.name}".replace("/", "_"), _PRETRAIN, spec)

    def _cell_jobs(self, cells: Iterable[PlannedCell]) -> Iterator[Job]:
        for cell in cells:
            word, spec = self.state(cell)
            if word == "kept":
                self.summary.kept.append(cell.id)
            elif spec is None:
                self._fail(cell, word, self._unrun(cell), 0)
            else:
                if word != "to run":
                    self._tell(f"{cell.id} {word}")
                for file in (self._record(cell), self._record(cell).with_name(ERROR_FILE)):
                    file.unlink(missing_ok=True)
                yield self._job(cell.id, _RUN_CELL, spec)

    def _unrun(self, cell: PlannedCell) -> Spec:
        """What a failed cell's record needs when its job could not even be described."""
        about = {key: getattr(cell, key) for key in ("study", "task", "initialisation", "protocol", "fraction", "seed")}
        kind = "probe" if self.plan.protocols[cell.protocol].probe else "bundle"
        return {"cell": about, "kind": kind, "bundle": self.plan.tasks[cell.task].bundle, "identity": {}}

    def _embedding_jobs(self) -> Iterator[Job]:
        """Ranking and points of the classification tasks, where the study asks for them."""
        for task in self.plan.tasks.values():
            if not task.bundle.endswith("_classification"):
                continue
            starts = [one for one in self.plan.initialisations.values() if not one.tasks or task.name in one.tasks]
            starts = [one for one in starts if (file := self.specs.encoder_file(one)) is None or file.exists()]
            if self.plan.ranking and starts:
                file = self.out / "ranking" / f"{slug(task.name)}.json"
                yield from self._embedding_job(f"ranking {task.name}", _RANK, file, self.specs.embedding(task, starts))
            for start in starts if self.plan.embeddings else ():
                spec = self.specs.embedding(task, [start])
                spec |= {"encoder": spec["encoders"][0], "method": "PCA"}
                file = self.out / "embeddings" / slug(task.name) / f"{slug(start.name)}.json"
                yield from self._embedding_job(f"embeddings {task.name} {start.name}", _DRAW, file, spec)

    def _embedding_job(self, name: str, function: str, file: Path, spec: Spec) -> Iterator[Job]:
        if changed_parts((read_record(file) or {}).get("identity"), spec["identity"], self.specs.any_code):
            file.unlink(missing_ok=True)
            yield self._job(name.replace("/", "_"), function, {**spec, "file": str(file)})

    def _run(self, jobs: Iterable[Job]) -> list[Outcome]:
        """Run jobs and take in what came of them; return those that failed."""
        listed = list(jobs)
        by_id = {cell.id: cell for cell in self.plan.cells()}
        failed = []
        for number, outcome in enumerate(self._executor.run(listed) if listed else (), 1):
            name = outcome.job.id
            error = _keep_traceback(outcome)
            word = f"failed: {error}" if error else f"done in {outcome.seconds:.0f} s"
            self._tell(f"[{number}/{len(listed)}] {name} {word}")
            if error:
                failed.append(outcome)
                self.summary.failed[name] = error
            if name in by_id and error:
                self._fail(by_id[name], error, outcome.job.arguments, outcome.attempts)
            elif name in by_id:
                self._finish(by_id[name], outcome)
        return failed

    def _fail(self, cell: PlannedCell, reason: str, spec: Spec, attempts: int) -> None:
        self.summary.failed[cell.id] = reason
        record = cell_record(spec, "failed", reason, attempts)
        write_record(self._record(cell), record)
        if self._cell_done is not None:
            self._cell_done(cell, record, [])

    def _finish(self, cell: PlannedCell, outcome: Outcome) -> None:
        record = {**(outcome.value or {}), "attempts": outcome.attempts}
        if outcome.attempts > 1:
            write_record(self._record(cell), record)
        self.summary.done.append(cell.id)
        if self._cell_done is not None:
            self._cell_done(cell, record, self._values(cell))


def _keep_traceback(outcome: Outcome) -> str:
    """Write the traceback of a failed job into its folder, or remove an earlier one; return the error, naming it."""
    folder = outcome.job.arguments.get("folder")
    if folder is None:
        return outcome.error
    file = Path(folder) / ERROR_FILE
    if not outcome.traceback:
        file.unlink(missing_ok=True)
        return outcome.error
    write_durably(file, lambda stream: stream.write(f"{outcome.error}\n\n{outcome.traceback}".encode()))
    return (
        f"{outcome.error.rstrip('.')}; the traceback is in {file.parent.parent.name}/{file.parent.name}/{ERROR_FILE}."
    )


def remove_unplanned(plan: StudyPlan, out: Path) -> list[str]:
    """Return the folders of cells that are no longer in the plan; they stay, but are not in the results."""
    planned = {cell.id for cell in plan.cells()}
    folder = out / "cells"
    return sorted(one.name for one in folder.iterdir() if one.name not in planned) if folder.is_dir() else []


def copy_study_file(plan: StudyPlan, out: Path) -> None:
    """Copy the YAML into the study's folder."""
    if plan.file.absolute() != (out / "study.yaml").absolute():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.file, out / "study.yaml")
