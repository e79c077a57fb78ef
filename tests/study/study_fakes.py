"""Cells of a study that take no time: what `runner` calls in place of trainings, in this or in another process."""

from __future__ import annotations

import csv
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.execution import Job, LocalExecutor, Outcome
from monai_ssl_transfer.study.planning.study_file import read_study
from monai_ssl_transfer.study.records import write_record
from monai_ssl_transfer.study.running import runner
from monai_ssl_transfer.study.running.cell_run import cell_record

BROKEN = "broken"
"""File in the study's folder that names the seed whose cells fail."""


def fake_cell(spec: dict[str, Any]) -> dict[str, Any]:
    """Write an evaluation that follows from the cell's settings, after a pause, and then the record."""
    folder, cell = Path(spec["folder"]), spec["cell"]
    out = folder.parents[1]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "starts.txt").open("a") as file:
        file.write(f"{folder.name}\n")
    if (out / BROKEN).is_file() and cell["seed"] == int((out / BROKEN).read_text()):
        raise DataError(f"{folder.name} has no photographs: give some.")
    time.sleep(float(spec["settings"].get("cache_rate", 0)))
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    with (folder / "eval" / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "class", "dice"])
        for case in range(3):
            worth = 0.5 + 0.01 * case + 0.02 * cell["seed"] + 0.1 * (spec["encoder"]["file"] is not None)
            rows.writerow([f"case{case}", "polyp", worth * cell["fraction"]])
    record = {**cell_record(spec, "done"), "seconds": 1.0}
    write_record(folder / "cell.json", record)
    return record


class HereExecutor:
    """Runs jobs one after another in this process."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        for job in jobs:
            try:
                yield Outcome(job, fake_cell(job.arguments), "", "", 1, 0.0)
            except DataError as error:
                yield Outcome(job, None, str(error), traceback.format_exc(), 1, 0.0)


def study_run(file: Path, out: Path, told: list[str] | None = None, any_code: bool = False) -> runner.StudyRun:
    """A study that runs in this process."""
    tell = (told if told is not None else []).append
    return runner.StudyRun(read_study(file), out, HereExecutor(), tell, any_code=any_code)


def run_here(file: Path, out: Path, told: list[str] | None = None, any_code: bool = False) -> runner.RunSummary:
    """Run a study in this process."""
    return study_run(file, out, told, any_code).run()


if __name__ == "__main__":  # the process that is killed
    runner._RUN_CELL = "study_fakes:fake_cell"
    plan = read_study(Path(sys.argv[1]))
    runner.StudyRun(plan, Path(sys.argv[2]), LocalExecutor(workers=1), lambda _: None).run()
