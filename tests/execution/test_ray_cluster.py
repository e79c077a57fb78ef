"""Jobs and ordered calls on a real Ray of this machine: what comes of them is what one machine gives."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import nibabel as nib
import numpy as np
import pytest
from execution_jobs import always_die, lose_own_worker, refuse
from PIL import Image
from processes import interrupt_program, wait_for_numbers, wait_until_gone

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.data.redaction import private_folder
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.data.worker_pool import in_order
from monai_ssl_transfer.errors import DataError, ExecutionError
from monai_ssl_transfer.execution import Job, LocalExecutor, Outcome
from monai_ssl_transfer.execution.ray_cluster import RayExecutor, refusal_of
from monai_ssl_transfer.execution.ray_connection import ray_cluster
from monai_ssl_transfer.execution.ray_pool import RayPool, ray_pool


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # calls of a pool are found by their module
    try:
        with ray_cluster(None, cpus=2) as module:
            yield module
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def job(name: str, function: str, cpus: float = 0.5, gpus: float = 0, memory_gb: float = 0, **arguments: object) -> Job:
    return Job(name, f"execution_jobs:{function}", arguments, cpus, gpus, memory_gb)


def what_came(outcome: Outcome) -> tuple[object, ...]:
    value = outcome.value and {key: part for key, part in outcome.value.items() if key != "process"}
    return value, outcome.error, outcome.traceback, outcome.attempts


def test_outcomes_and_logs_are_those_of_one_machine(ray: Any, tmp_path: Path) -> None:
    found, logs = {}, {}
    for name, pool in (("local", LocalExecutor), ("ray", RayExecutor)):
        folder = tmp_path / name
        folder.mkdir()
        jobs = [job("fails", "fail", count=str(folder / "f")), job("user", "fail_for_user"), job("leaves", "leave")]
        jobs += [job("double", "double", number=4), job("place", "surroundings", cpus=2)]
        jobs += [job("once", "die", count=str(folder / "once"), deaths=1)]
        found[name] = {end.job.id: what_came(end) for end in pool(log_dir=tmp_path / "logs", workers=2).run(jobs)}
        logs[name] = {file.name: file.read_text().splitlines()[1:] for file in (tmp_path / "logs").iterdir()}
        shutil.rmtree(tmp_path / "logs")
    assert found["ray"] == found["local"] and len(found["ray"]) == 6
    assert logs["ray"]["double.log"] == ["doubling 4"]
    assert {name: len(lines) for name, lines in logs["ray"].items()} == {
        name: len(lines) for name, lines in logs["local"].items()
    }
    assert found["ray"]["place"][0] == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "", "folder": str(Path.cwd())}


def test_lost_workers_and_processes_are_told(ray: Any, tmp_path: Path) -> None:
    jobs = [job("worker", "lose_worker", count=str(tmp_path / "worker"))]
    jobs += [job("always", "die", count=str(tmp_path / "always"), deaths=9)]
    jobs += [job("wide", "double", cpus=64), job("gpu", "double", gpus=1), job("large", "double", memory_gb=1e6)]
    found = {end.job.id: end for end in RayExecutor(retries=1).run(jobs)}
    assert found["worker"].error == "" and found["worker"].attempts == 2
    assert "always was killed (SIGKILL)" in found["always"].error and found["always"].attempts == 2
    assert found["wide"].error.startswith("wide asks for 64 cores") and "the most are 2 cores" in found["wide"].error
    assert "1 GPUs" in found["gpu"].error and "1e+06 GB" in found["large"].error
    assert found["gpu"].attempts == 0
    outcomes = RayExecutor(retries=0).run([job("last", "lose_worker", count=str(tmp_path / "last"))])
    assert next(outcomes).error == "the Ray worker of last, or its machine, was lost (WorkerCrashedError)"


def test_leaving_the_loop_ends_jobs_on_the_cluster(ray: Any, tmp_path: Path) -> None:
    told = tmp_path / "told"
    outcomes = RayExecutor().run([job("long", "wait_long", told=str(told)), job("a", "double", number=1)])
    assert next(outcomes).job.id == "a"
    processes = wait_for_numbers(told)
    outcomes.close()
    assert wait_until_gone(processes) == []


@pytest.mark.slow
def test_jobs_end_with_a_killed_program(ray: Any, tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    assert interrupt_program(tmp_path, "ray", address, signal.SIGKILL) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_cluster_of_its_own_ends_with_the_program(tmp_path: Path, number: signal.Signals) -> None:
    pytest.importorskip("ray")
    assert interrupt_program(tmp_path, "ray", None, number) == []


def test_nothing_to_do_starts_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(RayExecutor().run([])) == []


def test_a_job_needs_one_machine_that_has_all_of_it() -> None:
    machines = [{"CPU": 8.0, "memory": 4e9}, {"CPU": 2.0, "GPU": 1.0, "memory": 64e9}]
    assert refusal_of(job("a", "f", cpus=8, memory_gb=4), machines) == ""
    assert refusal_of(job("a", "f", cpus=2, gpus=1, memory_gb=60), machines) == ""
    assert "add a machine" in refusal_of(job("a", "f", cpus=4, gpus=1), machines)
    assert "the most are 0 cores" in refusal_of(job("a", "f"), [])


def test_ordered_calls_survive_a_lost_worker(ray: Any, tmp_path: Path) -> None:
    inputs = ((tmp_path / "mark", number) for number in range(8))
    assert list(in_order(RayPool(ray, retries=1), lose_own_worker, inputs, ahead=3)) == list(range(8))
    pool = RayPool(ray, retries=0)
    with pytest.raises(ExecutionError, match="Ray lost a worker 1 times in the same place"):
        list(in_order(pool, always_die, [(1,)], ahead=1))
    with pytest.raises(DataError, match="7 is too large, give a smaller one") as raised:
        pool.submit(refuse, 7).result()
    assert type(raised.value) is DataError


def _write_scans(source: Path) -> None:
    for number in range(5):
        voxels = np.random.default_rng(number).integers(-1000, 1000, (24, 20, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([-0.5, -0.5, 2, 1])), source / f"{number}.nii.gz")
    (source / "broken.nii.gz").write_bytes((source / "1.nii.gz").read_bytes()[:300])


def _write_frames(source: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (20, 32, 48, 3), dtype=np.uint8)
    for number, pixels in enumerate(pictures):
        (source / f"patient{number % 3}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(source / f"patient{number % 3}" / f"{number}.png")
    with av.open(str(source / "video.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 48, 32
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", [pytest.param("ct", marks=pytest.mark.slow), "frames"])
def test_ingest_gives_the_same_store(ray: Any, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    _write_scans(source) if kind == "ct" else _write_frames(source)
    more = [] if kind == "ct" else ["--every", "4"]
    stores = {}
    for name, where in (("one", ["--workers", "1"]), ("ray", ["--workers", "2", "--executor", "ray"])):
        private_folder(tmp_path / name).mkdir()
        (private_folder(tmp_path / name) / "salt").write_bytes(bytes(range(32)))
        assert main(["ingest", kind, str(source), "--out", str(tmp_path / name), *where, *more]) == 0
        stores[name] = _files(tmp_path / name) | _files(private_folder(tmp_path / name))
        assert len(SliceStore(tmp_path / name)) == (20 if kind == "ct" else 25)
    assert stores["ray"] == stores["one"]


def test_every_machine_must_see_the_data(ray: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(ExecutionError, match=r"does not see .*nowhere: put the data"),
        ray_pool(None, 2, [tmp_path, tmp_path / "nowhere"]),
    ):
        pass
