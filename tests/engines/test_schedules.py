from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine, Events
from lightly.utils.lars import LARS

from monai_ssl_transfer.engines.pretraining.schedules import (
    CosineOptions,
    CosineScheduleHandler,
    cosine,
    cosine_with_warmup,
    scaled_learning_rate,
)
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.parameters import parameter_groups


def test_known_values() -> None:
    assert cosine(0.0, 0.04, 0.4) == pytest.approx(0.04)
    assert cosine(0.5, 0.04, 0.4) == pytest.approx(0.22)
    assert cosine(1.0, 0.04, 0.4) == pytest.approx(0.4)
    assert cosine(0.25, 1.0, 0.0) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert cosine_with_warmup(0.05, 1.0, 0.0, 0.1) == pytest.approx(0.5)
    assert cosine_with_warmup(0.1, 1.0, 0.0, 0.1) == pytest.approx(1.0)
    assert cosine_with_warmup(0.55, 1.0, 0.0, 0.1) == pytest.approx(0.5)
    assert scaled_learning_rate(0.3, 4096) == pytest.approx(4.8)
    assert scaled_learning_rate(0.004, 4096, "sqrt", 1024) == pytest.approx(0.008)  # DINOv2's rule
    assert scaled_learning_rate(0.1, 64, "sqrt", 256) == pytest.approx(0.05)
    assert scaled_learning_rate(0.1, 64, "linear", 128) == pytest.approx(0.05)


@given(progress=st.floats(-1, 2), peak=st.floats(1e-6, 10), warmup=st.floats(0, 0.9))
def test_stays_between_zero_and_peak(progress: float, peak: float, warmup: float) -> None:
    assert -1e-9 <= cosine_with_warmup(max(progress, 0.0), peak, 0.0, warmup) <= peak * (1 + 1e-9)


def test_handler_depends_on_the_iteration_alone() -> None:
    """Every iteration's rates follow from its number: reached in one go or by starting in the middle."""

    def rates(start: int) -> dict[int, tuple[float, ...]]:
        parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))]
        groups = [{"params": parameters[:1], "weight_decay": 0.04}, {"params": parameters[1:], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=9.0)
        seen = {}
        engine = Engine(lambda *_: None)
        CosineScheduleHandler(optimizer, CosineOptions(0.5, 0.1, 1, 0.04, 0.4), batch_size=512).attach(engine)

        @engine.on(Events.STARTED)
        def resume(engine: Engine) -> None:
            engine.state.iteration, engine.state.epoch = start, start // 10

        @engine.on(Events.ITERATION_COMPLETED)
        def note(engine: Engine) -> None:
            first, second = optimizer.param_groups
            seen[engine.state.iteration] = (first["lr"], second["lr"], first["weight_decay"], second["weight_decay"])

        engine.run(range(10), max_epochs=20, epoch_length=10)
        return seen

    whole, part = rates(0), rates(57)
    assert part == {step: whole[step] for step in range(58, 201)}
    assert whole[1][0] == pytest.approx(1.0 / 10)  # the first of ten warm-up steps
    assert whole[11][0] == pytest.approx(1.0)  # twice the reference at a batch of 512
    assert whole[200][0] == pytest.approx(0.2, rel=1e-2)
    assert all(values[0] == values[1] for values in whole.values())
    assert whole[1][2] == pytest.approx(0.04)
    assert whole[200][2] == pytest.approx(0.4, rel=1e-2)
    assert {values[3] for values in whole.values()} == {0.0}


def _rates(options: CosineOptions, batch: int, factor: float = 1.0, epochs: int = 20) -> list[tuple[float, float]]:
    """Learning rates of the two groups in each step of a run of 10 steps per epoch."""
    parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))]
    optimizer = torch.optim.SGD(
        [{"params": parameters[:1], "lr_factor": 1.0}, {"params": parameters[1:], "lr_factor": factor}], lr=9.0
    )
    engine, seen = Engine(lambda *_: None), []
    CosineScheduleHandler(optimizer, options, batch, pieces=2).attach(engine)

    @engine.on(Events.ITERATION_COMPLETED)
    def note(_: Engine) -> None:
        seen.append(tuple(group["lr"] for group in optimizer.param_groups))

    engine.run(range(10), max_epochs=epochs, epoch_length=10)
    return seen


def test_hand_computed_steps_of_the_square_root_rule() -> None:
    """Batch 1024 at a reference of 256 doubles the rates; 20 of 200 steps warm up; biases learn at a fortieth."""
    seen = _rates(CosineOptions(0.2, 0.002, 2, rule="sqrt"), 1024, factor=1 / 40)
    assert seen[0][0] == pytest.approx(0.4 / 20)
    assert seen[9][0] == pytest.approx(0.2)
    assert seen[19][0] == seen[20][0] == pytest.approx(0.4)  # the last of the warm-up and the first of the cosine
    assert seen[110][0] == pytest.approx((0.4 + 0.004) / 2)  # half of the 180 steps of the cosine
    assert seen[199][0] == pytest.approx(0.004 + 0.396 * (1 + math.cos(math.pi * 179 / 180)) / 2)
    assert all(second == pytest.approx(first / 40) for first, second in seen)


def test_warm_up_in_images_and_its_longest_share() -> None:
    two_epochs = _rates(CosineOptions(0.2, warmup_epochs=2), 64)
    assert _rates(CosineOptions(0.2, warmup_images=1280), 64) == two_epochs  # 20 steps of 64 images
    assert _rates(CosineOptions(0.2, warmup_epochs=10), 64) == two_epochs  # a tenth of 20 epochs
    assert two_epochs[9][0] == pytest.approx(0.025)
    longer = _rates(CosineOptions(0.2, warmup_epochs=10, longest_warmup=0.25), 256)
    assert longer[24][0] == pytest.approx(0.1) and longer[50][0] == pytest.approx(0.2)


def test_the_start_says_how_the_rate_came_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    _rates(CosineOptions(0.2, 0.002, 2, rule="sqrt"), 1024, factor=0.024)
    (line,) = [record.message for record in caplog.records if "learning rate" in record.message]
    assert "learning rate 0.4 = 0.2 x sqrt(1024/256) (sqrt rule; global batch 1024 = 1 process x 512 images" in line
    assert "x 2 pieces), 2 warm-up epochs, then a cosine to 0.004; biases and norms at 0.024 times this" in line


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(TrainingError, match="linear, sqrt"):
        CosineOptions(0.1, rule="cubic")
    with pytest.raises(TrainingError, match="reference_batch"):
        CosineOptions(0.1, reference_batch=0)


def test_parameter_groups_name_their_factor() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    network[0].bias.requires_grad_(False)
    large, small = parameter_groups(network, 0.1, bias_factor=0.0048 / 0.2)
    assert [one.ndim for one in large["params"]] == [4] and len(small["params"]) == 2
    assert (large["weight_decay"], small["weight_decay"]) == (0.1, 0.0)
    assert (large["lr_factor"], small["lr_factor"]) == (1.0, pytest.approx(0.024))


def test_lars_without_weight_decay_is_refused() -> None:
    """lightly's LARS adapts no layer whose weight decay is 0."""
    layer = torch.nn.Linear(2, 2)
    for decay in (0.0, 1e-6):
        optimizer = LARS(parameter_groups(layer, decay), lr=0.1)
        engine = Engine(lambda *_: None)
        CosineScheduleHandler(optimizer, CosineOptions(0.1, weight_decay=decay), batch_size=256).attach(engine)
        if decay:
            engine.run([0], max_epochs=1)
        else:
            with pytest.raises(TrainingError, match="--weight_decay 1e-6"):
                engine.run([0], max_epochs=1)


def test_a_warm_up_that_is_cut_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2, 2))], lr=9.0)
    for epochs in (50, 200):
        engine = Engine(lambda *_: None)
        engine.state.max_epochs, engine.state.epoch_length = epochs, 10
        CosineScheduleHandler(optimizer, CosineOptions(0.5, warmup_epochs=10), batch_size=256).announce(engine)
    cut, whole = caplog.messages
    assert "5 warm-up epochs (10 were asked for, but longest_warmup is 0.1 of the run), then" in cut
    assert "10 warm-up epochs, then" in whole
