from __future__ import annotations

from pathlib import Path

import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Events

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, slice_loader
from monai_ssl_transfer.engines.pretraining.run_length import RunLength, run_length
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError


def sampler(images: int = 103, batch: int = 12) -> ArithmeticBatchSampler:
    return ArithmeticBatchSampler(images, batch, seed=5)


def test_epochs_are_whole_passes() -> None:
    assert run_length(sampler(), 7) == RunLength(7, 8)


def test_hand_computed_lengths(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    one = sampler()
    assert run_length(one, 100, 276) == RunLength(3, 8)  # 23 steps have no equal epochs of 4 to 8
    assert len(one) == 8
    assert caplog.messages == ["276 images at 12 per step are 23.0 steps: 3 epochs of 8 steps, 288 images"]
    assert run_length(sampler(), 100, 240) == RunLength(4, 5)  # 20 steps do not divide by 3 passes
    assert run_length(sampler(), 100, 12 * 8007) == RunLength(1001, 8)  # 8,008: near enough
    assert run_length(sampler(), 100, 40) == RunLength(1, 3)  # less than a pass
    assert run_length(sampler(), 100, 8 * 12 * 5) == RunLength(5, 8)  # five passes
    with pytest.raises(TrainingError, match="--total_images 5"):
        run_length(sampler(), 100, 5)


@given(images=st.integers(12, 3000), total=st.integers(12, 10**7))
def test_the_nearest_number_of_equal_epochs(images: int, total: int) -> None:
    one = sampler(images)
    length, steps = run_length(one, 1, total), round(total / 12)
    assert 1 <= length.steps_per_epoch == len(one) <= images // 12
    assert abs(length.epochs * length.steps_per_epoch - steps) <= max(length.epochs / 2, 0.01 * steps)
    passes = -(-steps // (images // 12))
    assert length.epochs >= min(20, steps // 10)
    assert length.epochs <= 2 * max(passes, 20 + passes)


@pytest.mark.parametrize("total", [12 * 200, 12 * 1000, 12 * 1500])
def test_a_run_of_few_passes_has_twenty_periods_without_repetition(total: int) -> None:
    one = sampler(12 * 1000 + 5)
    length = run_length(one, 1, total)
    assert 20 <= length.epochs <= 22
    assert length.epochs * length.steps_per_epoch == pytest.approx(total / 12, rel=0.01)
    seen = [image for _ in range(length.epochs) for batch in one for image in batch]
    most = one.epochs_per_pass * length.steps_per_epoch * 12
    assert len(set(seen[:most])) == min(most, len(seen))  # one pass, whose parts have no image in common


def build(folder: Path) -> tuple[PretrainingTrainer, list[list[int]]]:
    """A run of 12 batches of 8 out of 44 images: three epochs of four steps, of the five of a pass."""
    batches: list[list[int]] = []
    trainer = tiny_run.build(folder)
    order = ArithmeticBatchSampler(44, 8, 3)
    length = run_length(order, 1, 12 * 8)
    loader = slice_loader(SliceDataset(tiny_run.TinyStore(), "single"), order)
    trainer = PretrainingTrainer(
        "cpu", length.epochs, loader, trainer.method, trainer.optimizer, tiny_run.tiny_views, None, trainer.handlers
    )

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine: PretrainingTrainer) -> None:
        batches.append(engine.state.batch["index"].tolist())

    return trainer, batches


def test_a_run_with_short_epochs_resumes_exactly(tmp_path: Path) -> None:
    whole, expected = build(tmp_path / "whole")
    whole.run()
    assert whole.state.iteration == len(expected) == 12 and whole.state.epoch_length == 4
    part, seen = build(tmp_path / "part")
    part.add_event_handler(Events.ITERATION_COMPLETED(once=6), lambda engine: engine.terminate(skip_completed=True))
    part.run()
    rest, after = build(tmp_path / "part")
    rest.run()
    assert seen[:6] + after == expected
    for name, tensor in whole.method.state_dict().items():
        assert tensor.equal(rest.method.state_dict()[name]), name
