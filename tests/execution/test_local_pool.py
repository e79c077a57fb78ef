"""Jobs on this machine: what comes of them, that lost ones are started again, and that no process is left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from processes import interrupt_program, wait_for_numbers, wait_until_gone

from monai_ssl_transfer.errors import ExecutionError
from monai_ssl_transfer.execution import Job, LocalExecutor, Outcome, executor


def job(name: str, function: str, cpus: float = 1, gpus: float = 0, memory_gb: float = 0, **arguments: object) -> Job:
    return Job(name, f"execution_jobs:{function}", arguments, cpus, gpus, memory_gb)


def run(jobs: list[Job], pool: LocalExecutor | None = None) -> dict[str, Outcome]:
    outcomes = list((pool or LocalExecutor(2, cpus=2)).run(jobs))
    assert len(outcomes) == len(jobs)
    return {outcome.job.id: outcome for outcome in outcomes}


def test_each_job_has_a_process_of_its_own_and_failed_ones_do_not_stop_the_others(tmp_path: Path) -> None:
    count = tmp_path / "count"
    jobs = [job("fails", "fail", count=str(count)), job("user", "fail_for_user"), job("leaves", "leave")]
    jobs += [job("number", "no_dict"), job("absent", "is_not_there"), Job("nowhere", "no_such_module:f", {})]
    jobs += [job(f"{number}", "double", number=number) for number in range(3)]
    found = run(jobs)
    assert [found[f"{number}"].value["double"] for number in range(3)] == [0, 2, 4]
    assert found["2"].value["pair"] == [1, 2]  # as JSON has it, on every executor
    assert len({found[f"{number}"].value["process"] for number in range(3)}) == 3
    assert found["fails"].error == "ValueError: seven is not eight" and found["fails"].value is None
    assert 'raise ValueError("seven' in found["fails"].traceback
    assert count.read_text() == "x" and found["fails"].attempts == 1  # not started again
    assert found["user"].error == "scan.nii is empty, give a whole one"
    assert found["leaves"].error == "SystemExit: 0"
    assert found["number"].error == "TypeError: execution_jobs:no_dict must return a dict, not int"
    assert found["absent"].error.startswith("AttributeError") and "no_such_module" in found["nowhere"].error
    assert all(outcome.error == "" for name, outcome in found.items() if name.isdigit())


def test_lost_jobs_are_started_again_and_named_when_that_does_not_help(tmp_path: Path) -> None:
    jobs = [
        job("once", "die", count=str(tmp_path / "once"), deaths=1),
        job("always", "die", count=str(tmp_path / "always"), deaths=9),
        job("crash", "die", count=str(tmp_path / "crash"), deaths=9, signal=signal.SIGSEGV),
    ]
    found = run(jobs, LocalExecutor(2, retries=2, log_dir=tmp_path / "logs", cpus=2))
    assert (found["once"].value, found["once"].error, found["once"].attempts) == ({"deaths": 1}, "", 2)
    assert found["always"].value is None and found["always"].attempts == 3
    assert "process of always was killed (SIGKILL)" in found["always"].error
    assert "lack of memory" in found["always"].error and "3 attempts" in found["always"].error
    assert (tmp_path / "always").read_text() == "xxx"
    assert "SIGSEGV" in found["crash"].error and str(tmp_path / "logs" / "crash.log") in found["crash"].error
    log = (tmp_path / "logs" / "crash.log").read_text()
    assert log.count("attempt") == 3 and "in die" in log  # where the crash was


def test_output_goes_to_a_log_named_by_the_job(tmp_path: Path) -> None:
    for _ in range(2):
        run([job("seven", "double", number=7), job("bad", "fail_for_user")], LocalExecutor(log_dir=tmp_path))
    assert (tmp_path / "seven.log").read_text().count("doubling 7") == 2  # an earlier log is not lost
    assert "DataError: scan.nii" in (tmp_path / "bad.log").read_text()


def test_jobs_run_at_the_same_time_and_see_what_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    (tmp_path / "marks").mkdir()
    wanted = {"folder": str(tmp_path / "marks"), "wanted": 3}
    jobs = [job("a", "meet", 1, 1, **wanted), job("b", "meet", 2, 1, **wanted), job("c", "meet", 0.5, **wanted)]
    jobs.append(job("two", "surroundings", 1, 2))
    found = run(jobs, LocalExecutor(3, cpus=4))
    devices = {name: outcome.value["CUDA_VISIBLE_DEVICES"] for name, outcome in found.items()}
    assert {devices["a"], devices["b"]} == {"3", "5"} and devices["c"] == "" and set(devices["two"]) == set("3,5")
    assert [found[name].value["OMP_NUM_THREADS"] for name in "abc"] == ["1", "2", "1"]
    assert found["a"].value["folder"] == str(Path.cwd())


@pytest.mark.parametrize("asked", [{"cpus": 1.5}, {"memory_gb": 2}])
def test_jobs_wait_while_there_is_no_room(tmp_path: Path, asked: dict[str, float]) -> None:
    jobs = [job(f"{number}", "overlap", **asked, folder=str(tmp_path)) for number in range(3)]
    found = run(jobs, LocalExecutor(3, cpus=2, memory_gb=3))
    assert [found[f"{number}"].value["most"] for number in range(3)] == [1, 1, 1]


def test_what_can_never_run_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    jobs = [job("wide", "double", cpus=3), job("large", "double", memory_gb=9), job("gpus", "double", gpus=2)]
    found = run([*jobs, job("fine", "double", gpus=1, number=1)], LocalExecutor(2, cpus=2, memory_gb=8))
    assert found["wide"].error.startswith("wide asks for 3 cores and this machine has 2: ")
    assert "9 GB of memory" in found["large"].error and "2 GPUs" in found["gpus"].error
    assert found["wide"].attempts == 0 and found["fine"].error == ""


def test_leaving_the_loop_ends_the_jobs_and_what_they_started(tmp_path: Path) -> None:
    told = tmp_path / "told"
    outcomes = LocalExecutor(2, cpus=2).run([job("long", "wait_long", told=str(told)), job("a", "double", number=1)])
    assert next(outcomes).job.id == "a"
    processes = wait_for_numbers(told)
    outcomes.close()
    assert wait_until_gone(processes, 5) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_jobs_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    assert interrupt_program(tmp_path, "local", None, number) == []


def test_jobs_that_make_no_sense_are_refused() -> None:
    for changed in ({"id": "a/b"}, {"id": ""}, {"function": "f"}, {"cpus": -1}, {"gpus": 1.5}, {"arguments": {1j: 2}}):
        with pytest.raises(ValueError):
            Job(**{"id": "a", "function": "m:f", "arguments": {}} | changed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two jobs are named a"):
        list(LocalExecutor(1).run([job("a", "double", number=1), job("a", "double", number=2)]))


def test_an_executor_is_chosen_by_name() -> None:
    assert isinstance(executor("local", 3), LocalExecutor)
    with pytest.raises(ExecutionError, match="'slurm', give one of local, ray"):
        executor("slurm")
    with pytest.raises(ExecutionError, match="give --executor ray with it"):
        executor("local", address="auto")
