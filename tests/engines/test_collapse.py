from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from torch import Tensor

from monai_ssl_transfer.engines.pretraining.collapse import (
    CollapseMonitor,
    CollapseOptions,
    effective_rank,
    embedding_spread,
)
from monai_ssl_transfer.engines.pretraining.trainer import StepOptions
from monai_ssl_transfer.errors import TrainingError


def test_figures_of_healthy_and_collapsed_embeddings() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(256, 32, generator=generator)
    assert embedding_spread(healthy) == pytest.approx(1.0, abs=0.05)
    assert effective_rank(healthy) > 25
    constant = torch.randn(1, 32, generator=generator).expand(256, 32)
    noisy = constant + 1e-4 * torch.randn(256, 32, generator=generator)  # MONAI's EmbeddingCollapseMetric is content
    for collapsed in (constant, noisy):
        assert embedding_spread(collapsed) < 0.001
        assert effective_rank(collapsed) < 1.05
    line = torch.randn(256, 1, generator=generator) * constant  # spread out, but along one direction
    assert embedding_spread(line) > 0.8
    assert effective_rank(line) < 1.05


def test_effective_rank_equals_the_formula() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 8)) * np.arange(1, 9)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.svd(unit, compute_uv=False)
    share = values / values.sum()
    assert effective_rank(torch.from_numpy(rows)) == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_a_line_that_does_not_pass_through_0_is_one_line() -> None:
    generator = torch.Generator().manual_seed(0)
    place, direction = torch.randn(2, 32, generator=generator)
    line = place + torch.randn(64, 1, generator=generator) * direction + 1e-3 * torch.randn(64, 32, generator=generator)
    healthy = 3 * place + torch.randn(64, 32, generator=generator)  # the mean is large, as behind a ReLU
    assert embedding_spread(line) > 0.1 and effective_rank(line) > 1.2
    assert effective_rank(line, centred=True) < 1.5
    assert effective_rank(healthy, centred=True) > 20


class _Line(tiny_run.TinyMethod):
    """Embeddings on a line beside 0, of as many images as a batch has."""

    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        place, direction = torch.eye(6)[:2]
        return {**super().forward(views, progress), "embedding": place + torch.randn(len(views[0]), 1) * direction}


class _OnePrototype(tiny_run.TinyMethod):
    """Healthy embeddings, and a teacher that chooses some number of prototypes with some entropy."""

    def __init__(self, entropy: float, prototypes: float) -> None:
        super().__init__()
        self.teacher = {"teacher_entropy": torch.tensor(entropy), "teacher_prototypes": torch.tensor(prototypes)}

    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        return {**super().forward(views, progress), "embedding": torch.randn(len(views[0]), 6), **self.teacher}


class _Constant(tiny_run.TinyMethod):
    """All embeddings are one vector plus noise of a given size."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        output = super().forward(views, progress)
        embedding = torch.arange(1.0, 7.0) + self.noise * torch.randn(len(views[0]), 6)
        return {**output, "embedding": embedding}


class _Stuck(tiny_run.TinyMethod):
    """Healthy embeddings, but the loss of a constant output."""

    collapsed_loss = math.log(4096)

    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        output = super().forward(views, progress)
        loss = output["loss"] * 0 + self.collapsed_loss
        return {"loss": loss, "embedding": torch.randn(len(views[0]), 6)}


def _run(folder: Path, method: tiny_run.TinyMethod, **options: float) -> tiny_run.PretrainingTrainer:
    chosen = {"every": 1, "warmup": 2, "warn_after": 2, "stop_after": 6, **options}
    monitor = CollapseMonitor(method, CollapseOptions(**chosen))  # type: ignore[arg-type]
    trainer = tiny_run.build(folder, method=method, handlers=[monitor], options=StepOptions())
    trainer.run()
    return trainer


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_a_collapsed_run_is_warned_and_stopped(noise: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TrainingError, match=r"step 8 .* nearly equal .*--learning_rate"):
        _run(tmp_path, _Constant(noise))
    assert "step 4: the run may be collapsing" in caplog.text


def test_a_loss_stuck_at_ln_k_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"constant output \(8\.31777\)"):
        _run(tmp_path, _Stuck())


def test_a_healthy_run_goes_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = _run(tmp_path, _Constant(1.0))
    assert trainer.state.iteration == 15
    assert "collapsing" not in caplog.text
    assert trainer.state.metrics["effective_rank"] > 1.05


def test_embeddings_on_a_line_are_stopped(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="on one line"):
        _run(tmp_path, _Line())


def test_a_teacher_with_one_prototype_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"same prototype \(entropy 0\.0500"):
        _run(tmp_path, _OnePrototype(0.05, 1.0))


@pytest.mark.parametrize(("entropy", "prototypes"), [(0.05, 2.0), (0.2, 1.0)])
def test_a_sharp_teacher_and_one_that_is_undecided_go_through(
    entropy: float, prototypes: float, tmp_path: Path
) -> None:
    assert _run(tmp_path, _OnePrototype(entropy, prototypes)).state.iteration == 15


def test_nothing_is_judged_while_the_learning_rate_warms_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = _run(tmp_path, _Constant(0.0), warmup_share=0.7, warn_after=99)
    assert trainer.state.iteration == 15  # 4 bad checks after 11 of 15 steps
    with pytest.raises(TrainingError, match="step 14 "):
        _run(tmp_path / "shorter", _Constant(0.0), warmup_share=0.5)


def test_every_epoch_has_the_figures(tmp_path: Path) -> None:
    trainer = _run(tmp_path, _Constant(1.0), every=1000)
    assert {"embedding_spread", "effective_rank"} <= trainer.state.metrics.keys()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 3 and all("embedding_spread" in one for one in records)
