from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine, Events

from monai_ssl_transfer.engines.schedules import (
    CosineOptions,
    CosineScheduleHandler,
    cosine,
    cosine_with_warmup,
    scaled_learning_rate,
)


def test_known_values() -> None:
    assert cosine(0.0, 0.04, 0.4) == pytest.approx(0.04)
    assert cosine(0.5, 0.04, 0.4) == pytest.approx(0.22)
    assert cosine(1.0, 0.04, 0.4) == pytest.approx(0.4)
    assert cosine(0.25, 1.0, 0.0) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert cosine_with_warmup(0.05, 1.0, 0.0, 0.1) == pytest.approx(0.5)
    assert cosine_with_warmup(0.1, 1.0, 0.0, 0.1) == pytest.approx(1.0)
    assert cosine_with_warmup(0.55, 1.0, 0.0, 0.1) == pytest.approx(0.5)
    assert scaled_learning_rate(0.3, 4096) == pytest.approx(4.8)


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
