"""Two processes with half a batch each, and a batch in pieces, are one process with the whole batch: every method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import plain_losses
import pytest
import tiny_methods
import torch
from torch import Tensor, nn

import monai_ssl_transfer.methods
from monai_ssl_transfer.engines.pretraining.trainer import StepOptions
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods import SSLMethod
from monai_ssl_transfer.methods.batch_norm import CPUSyncBatchNorm, synchronise_batch_norm

Result = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def processes(folder: Path) -> list[subprocess.Popen[str]]:
    """Two processes that work while this one does the same alone."""
    script = str(Path(tiny_methods.__file__).with_name("two_processes.py"))
    started = []
    for rank in (0, 1):
        places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, script, str(folder)]
        started.append(subprocess.Popen(command, text=True, env={**os.environ, **places}, **pipes))
    return started


@pytest.fixture(scope="module")
def alone(processes: list[subprocess.Popen[str]]) -> dict[str, Result]:
    return {name: tiny_methods.run(name) for name in tiny_methods.METHODS | tiny_methods.WHOLE}


@pytest.fixture(scope="module")
def without_norms(processes: list[subprocess.Popen[str]]) -> dict[str, Result]:
    return {name: tiny_methods.run(name, batch_norm=False) for name in tiny_methods.METHODS}


@pytest.fixture(scope="module")
def both(processes: list[subprocess.Popen[str]], folder: Path, alone: Any, without_norms: Any) -> list[Result]:
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def require_same_training(first: Result, second: Result, ignored: tuple[str, ...] = ()) -> None:
    """Losses of all steps and the final state agree, up to rounding that is small beside what training moved.

    A bias before batch norm has no gradient but rounding, so that very small changes may differ altogether.
    """
    assert len(first["losses"]) == len(second["losses"]) == tiny_methods.STEPS
    assert second["losses"] == pytest.approx(first["losses"], rel=2e-4)
    assert first["after"].keys() == second["after"].keys()
    moved = 0.0
    for name, value in first["after"].items():
        if name.endswith(ignored):
            continue
        change = float((value.float() - first["before"][name].float()).norm())
        difference = float((value.float() - second["after"][name].float()).norm())
        assert difference <= 2e-3 * change + 1e-4, (name, difference, change)
        moved += change
    assert moved > 0.1


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def test_every_method_is_here() -> None:
    exported = {getattr(monai_ssl_transfer.methods, name) for name in monai_ssl_transfer.methods.__all__}
    methods = {one for one in exported if isinstance(one, type) and issubclass(one, SSLMethod)} - {SSLMethod}
    assert {type(build()) for build, _ in tiny_methods.METHODS.values()} == methods


@pytest.mark.parametrize("name", tiny_methods.METHODS | tiny_methods.WHOLE)
def test_two_processes_equal_one(name: str, alone: dict[str, Result], both: list[Result]) -> None:
    # without synchronisation each process keeps the statistics of its own images
    ignored = STATISTICS if name == "moco_v2" else ()
    for rank in both:
        require_same_training(alone[name], rank[name], ignored)
    assert [a + b for a, b in zip(*(rank[name]["keys"] for rank in both), strict=True)] == alone[name]["keys"]


@pytest.mark.parametrize("name", tiny_methods.METHODS)
def test_two_processes_with_two_pieces_each_equal_one(
    name: str, without_norms: dict[str, Result], both: list[Result]
) -> None:
    for rank in both:
        require_same_training(without_norms[name], rank[f"{name} in pieces"])


@pytest.mark.parametrize("name", tiny_methods.METHODS)
def test_pieces_equal_the_whole(name: str, without_norms: dict[str, Result]) -> None:
    pieces = tiny_methods.run(name, False, StepOptions(accumulation=2))
    require_same_training(without_norms[name], pieces)


@pytest.mark.parametrize("name", plain_losses.LOSSES)
def test_losses_of_two_processes_are_the_papers(name: str, both: list[Result]) -> None:
    """Against formulas in float64 over the images of both, written down apart from the methods."""
    found = torch.stack([rank["compared"][name] for rank in both]).mean().item()
    assert found == pytest.approx(plain_losses.LOSSES[name](plain_losses.inputs(name)), rel=1e-5)


@pytest.mark.parametrize("name", tiny_methods.WHOLE)
def test_what_needs_a_whole_batch_refuses_pieces(name: str) -> None:
    with pytest.raises(TrainingError, match="--centring sinkhorn_knopp looks at all images of a step at once, which"):
        tiny_methods.run(name, options=StepOptions(accumulation=2))


def test_a_run_stopped_on_two_goes_on_exactly_on_two(both: list[Result]) -> None:
    for rank in both:
        assert rank["stopped"]["losses"][-1] == 128 + 15  # the signal went to the second process alone
        steps = len(rank["stopped"]["keys"])
        assert 0 < steps < tiny_methods.STEPS
        assert rank["resumed"]["losses"] == rank["undisturbed"]["losses"][steps:]
        for name, value in rank["undisturbed"]["after"].items():
            # the first process writes; statistics that are not synchronised are its own, and have no effect on training
            if rank is both[0] or not name.endswith(STATISTICS):
                assert torch.equal(value, rank["resumed"]["after"][name]), name


def test_a_run_stopped_on_two_goes_on_sensibly_on_one(folder: Path, both: list[Result]) -> None:
    settings = {"options": StepOptions(clip_norm=1.0), "epochs": 2}
    undisturbed = tiny_methods.run("simclr", **settings)
    resumed = tiny_methods.run("simclr", **settings, handlers=(tiny_methods.checkpoints_in(folder / "on_one"),))
    steps = len(resumed["losses"])
    assert tiny_methods.STEPS < steps < 2 * tiny_methods.STEPS
    assert resumed["keys"] == undisturbed["keys"][-steps:]
    assert resumed["losses"] == pytest.approx(undisturbed["losses"][-steps:], rel=1e-3)


def test_all_processes_skip_the_step_that_is_bad_for_one(both: list[Result]) -> None:
    for rank in both:
        assert rank["skipped"]["metrics"]["skipped"] == 1
        assert all(bool(value.isfinite().all()) for value in rank["skipped"]["after"].values())
    for name, value in both[0]["skipped"]["after"].items():
        assert torch.equal(value, both[1]["skipped"]["after"][name]), name


def test_prototypes_stand_still_on_two(both: list[Result]) -> None:
    for rank in both:
        before, after = rank["frozen"]["before"], rank["frozen"]["after"]
        assert torch.equal(before["projection_head.last_layer.weight_v"], after["projection_head.last_layer.weight_v"])
        assert not torch.equal(before["projection_head.layers.0.weight"], after["projection_head.layers.0.weight"])


def test_each_process_draws_its_own_stochastic_depth(both: list[Result]) -> None:
    assert both[0]["draw"] != both[1]["draw"]


def test_interleaving_keeps_the_order(both: list[Result]) -> None:
    assert torch.cat([rank["order"] for rank in both]).flatten().tolist() == list(range(8))


def test_synchronised_batch_norm_keeps_names_parameters_and_optimizer() -> None:
    plain = tiny_methods.TinyCNN()
    names, parameters = list(plain.state_dict()), list(plain.parameters())
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
    network = synchronise_batch_norm(plain, torch.device("cpu"))
    assert sum(isinstance(module, CPUSyncBatchNorm) for module in network.modules()) == 2
    assert list(network.state_dict()) == names
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    before = network.layers[1].weight.detach().clone()
    network(torch.randn(4, 1, 12, 12)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(network.layers[1].weight, before)


def test_batch_norm_that_has_no_synchronised_form_is_refused() -> None:
    class _Own(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).relu()

    with pytest.raises(TrainingError, match="_Own cannot be synchronised"):
        synchronise_batch_norm(nn.Sequential(_Own(3)), torch.device("cpu"))
