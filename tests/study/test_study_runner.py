"""Running a study: kept, changed and failed cells, a kill, the declaration before the runs, cost and MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from study_fakes import BROKEN, run_here, study_run

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.study.declaration import read_declaration
from monai_ssl_transfer.study.planning.cost import done_cells, study_cost
from monai_ssl_transfer.study.planning.plan import declare_before_runs, only_run, write_plan
from monai_ssl_transfer.study.planning.study_file import read_study
from monai_ssl_transfer.study.results import read_results
from monai_ssl_transfer.study.statistics.power import smallest_difference


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """2 initialisations x 1 task x 2 protocols x 2 seeds."""
    return write_study(tmp_path)


def write_study(place: Path, **changes: Any) -> Path:
    data = place / "data"
    data.mkdir(exist_ok=True)
    if not (data / "image.png").exists():
        (data / "image.png").write_bytes(b"pixels")
    if not (place / "weights.pth").exists():
        (place / "weights.pth").write_bytes(b"weights")
    task = {
        "bundle": "endoscopy_polyp_segmentation",
        "data": str(data),
        "metrics": ["dice"],
        "network": "configs/networks/unet_{encoder}.json",
        "settings": {"cache_rate": changes.pop("pause", 0)},  # a setting of the bundle; the fake cell waits so long
        "seconds": 60,
    }
    content = {
        "title": "study",
        "budget": "none",
        "seeds": [0, 1],
        "encoder": "resnet18",
        "reference": "scratch",
        "initialisations": {"scratch": None, "own": "weights.pth"},
        "tasks": {"polyps": task},
        "protocols": {"full": "configs/protocols/full.json", "frozen": {"overlays": "configs/protocols/frozen.json"}},
    } | changes
    file = place / "study.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def starts(out: Path) -> list[str]:
    return (out / "starts.txt").read_text().split()


def test_a_killed_study_goes_on_and_gives_the_same_results(tmp_path: Path) -> None:
    file = write_study(tmp_path, pause=0.4)
    out, whole = tmp_path / "killed", tmp_path / "whole"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, str(Path(__file__).parent / "study_fakes.py"), str(file), str(out)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        for _ in range(1200):
            if len(list(out.glob("cells/*/cell.json"))) >= 2 and len(starts(out)) >= 3:
                break
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(1.0)  # its jobs notice within a third of a second
    finished = sorted(one.parent.name for one in out.glob("cells/*/cell.json"))
    assert 2 <= len(finished) < 8
    summary = run_here(file, out)
    assert sorted(summary.kept) == finished
    assert len(summary.done) == 8 - len(finished)
    assert all(starts(out).count(name) == 1 for name in finished)
    run_here(file, whole)
    assert (out / "results.parquet").read_bytes() == (whole / "results.parquet").read_bytes()


def test_a_failing_cell_leaves_the_others_and_is_tried_again(study: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", list[str]()
    out.mkdir()
    (out / BROKEN).write_text("1")
    summary = run_here(study, out)
    assert len(summary.done) == 4
    assert set(summary.failed) == {cell.id for cell in read_study(study).cells() if cell.seed == 1}
    record = json.loads((out / "cells" / "polyps__own__full__1__seed1" / "cell.json").read_text())
    assert record["status"] == "failed"
    assert "has no photographs" in record["reason"]
    assert record["reason"].endswith("cells/polyps__own__full__1__seed1/error.txt.")
    errors = sorted(out.glob("cells/*/error.txt"))
    assert [file.parent.name for file in errors] == sorted(summary.failed)
    assert all("Traceback" in file.read_text() and "in fake_cell" in file.read_text() for file in errors)
    assert {row["seed"] for row in read_results(out / "results.parquet").table.to_pylist()} == {0}
    (out / BROKEN).unlink()
    again = run_here(study, out, told)
    assert (len(again.kept), len(again.done), again.failed) == (4, 4, {})
    assert sum("it failed before" in line for line in told) == 4
    assert not list(out.glob("cells/*/error.txt"))


def test_only_cells_that_a_change_touches_are_run_again(study: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "out", list[str]()
    run_here(study, out)
    assert run_here(study, out).done == []
    frozen = {"overlays": "configs/protocols/frozen.json", "settings": {"learning_rate": 0.1}}
    write_study(tmp_path, protocols={"full": "configs/protocols/full.json", "frozen": frozen})
    changed = run_here(study, out, told)
    assert len(changed.done) == len(changed.kept) == 4
    assert all("__frozen__" in name for name in changed.done)
    assert sum("changed settings, protocol" in line for line in told) == 4
    (tmp_path / "weights.pth").write_bytes(b"other weights")
    assert all("__own__" in name for name in run_here(study, out).done)
    (tmp_path / "data" / "image.png").write_bytes(b"other pixels")
    assert len(run_here(study, out).done) == 8


def test_what_an_edited_package_made_before_is_not_kept_silently(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, told = tmp_path / "out", list[str]()
    run_here(study, out)
    monkeypatch.setattr("monai_ssl_transfer.study.planning.specs.hash_of_code", lambda: "edited")
    assert run_here(study, out, any_code=True).done == []
    assert len(read_results(out / "results.parquet")) == 8 * 3
    assert len(run_here(study, out, told).done) == 8
    assert sum("again: changed code" in line for line in told) == 8
    monkeypatch.undo()
    runner = study_run(study, out, told := [])
    assert runner.collect() is None
    assert sum("is left out of the results (again: changed code)" in line for line in told) == 8


def test_half_a_record_is_no_record(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(study, out)
    file = out / "cells" / "polyps__own__full__1__seed1" / "cell.json"
    file.write_text(file.read_text()[:-40])
    assert run_here(study, out).done == ["polyps__own__full__1__seed1"]


def test_results_hold_what_the_cells_say(study: Path, tmp_path: Path) -> None:
    run_here(study, tmp_path / "out")
    results = read_results(tmp_path / "out" / "results.parquet")
    assert len(results) == 8 * 3
    own = next(one for one in results.cells() if one.initialisation == "own" and one.protocol == "full")
    assert results.per_seed(own, "dice") == pytest.approx({0: 0.61, 1: 0.63})


def test_the_declaration_is_written_first_and_tells_of_changes(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = read_study(study)
    first = declare_before_runs(plan, out)
    write_plan(plan, out, {})
    assert read_declaration(out / "study.json") == first == declare_before_runs(plan, out)
    run_here(study, out)
    write_study(tmp_path, seeds=[0, 1, 2])
    changed = declare_before_runs(read_study(study), out)
    assert "after 8 cells had been run (earlier_declaration_1.json)" in changed.notes[-1]
    assert read_declaration(out / "earlier_declaration_1.json") == first
    assert declare_before_runs(read_study(study), out) == changed


def test_a_folder_of_another_kind_and_a_second_run_are_refused(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "imported"
    out.mkdir()
    (out / "study.json").write_text("{}")
    with pytest.raises(StudyError, match="was not planned here"):
        declare_before_runs(read_study(study), out)
    code = "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
    code += "print('held', flush=True); time.sleep(30)"
    with subprocess.Popen([sys.executable, "-c", code, str(out / ".lock")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StudyError, match="is being run by another process"), only_run(out):
            pass
        other.kill()


def test_cost_is_measured_scaled_or_stated(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = read_study(study)
    before = study_cost(plan, {}, None)
    assert (before.by_basis, before.cell_hours) == ({"stated": 8}, pytest.approx(8 * 60 / 3600))
    (tmp_path / "out").mkdir()
    (out / BROKEN).write_text("1")
    run_here(study, out)
    after = study_cost(plan, done_cells(plan, out), out)
    assert (after.done, after.by_basis) == (4, {"measured": 4})
    assert after.cell_hours == pytest.approx(4 * 1.0 / 3600)
    write_study(tmp_path, fractions=[1.0, 0.25])
    plan = read_study(study)
    scaled = study_cost(plan, done_cells(plan, out), out)
    assert scaled.by_basis == {"measured": 4, "scaled": 8}
    assert scaled.cell_hours == pytest.approx((4 + 8 * 0.25) / 3600)


def test_processor_time_is_told_where_it_differs_from_the_clock(study: Path, tmp_path: Path) -> None:
    plan = read_study(study)
    for cpu_seconds, told in ((0.9, False), (0.25, True), (3.0, True)):
        done = {cell: {"seconds": 1.0, "cpu_seconds": cpu_seconds} for cell in plan.cells() if cell.seed == 0}
        cost = study_cost(plan, done, None)
        assert (cost.cell_hours, cost.processor_hours) == pytest.approx((4 / 3600, 4 * cpu_seconds / 3600))
        assert any("processor time" in one for one in cost.sentences(plan.resources)) == told


def test_power_takes_the_spread_that_was_seen(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(study, out)
    _, (seen,) = write_plan(read_study(study), out, {})
    spread = 0.02 / 2**0.5  # seeds 0 and 1 of every cell differ by 0.02
    assert seen.spread == pytest.approx(spread)
    assert seen.difference == pytest.approx(smallest_difference(spread, 2))
    assert seen.corrected == pytest.approx(smallest_difference(spread, 2, alpha=0.05 / 2))
    _, (given,) = write_plan(read_study(study), out, {"dice": 0.1})
    assert given.spread == 0.1
    with pytest.raises(StudyError, match="no metric 'dise'"):
        write_plan(read_study(study), out, {"dise": 0.1})


def test_mlflow_gets_one_run_per_cell(study: Path, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    from study_fakes import HereExecutor

    from monai_ssl_transfer.study.running import runner
    from monai_ssl_transfer.study.running.mlflow_log import MlflowLog

    out, uri = tmp_path / "out", f"sqlite:///{tmp_path}/mlflow.db"
    out.mkdir()
    (out / BROKEN).write_text("1")
    plan = read_study(study)
    for _ in range(2):
        runner.StudyRun(plan, out, HereExecutor(), lambda _: None, MlflowLog(plan, out, uri)).run()
    client = tracking.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(cell.id for cell in plan.cells())
    run = next(run for run in runs if run.info.run_name == "polyps__own__full__1__seed0")
    assert run.data.metrics["dice"] == pytest.approx(0.61)
    assert run.data.params["protocol"] == "full"
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}
