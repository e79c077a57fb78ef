from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from ignite.engine import Events

from monai_ssl_transfer.data.order import epoch_order
from monai_ssl_transfer.engines.pretraining.continued_run import ContinuedRun
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError

KIND = {"method": "tiny", "encoder": "tiny", "channels": "single"}
STEPS = 44 // 8


class Steps:
    """What each step saw: images, epoch of the data, learning rate; and the state before the first one."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[int], int, float]] = []
        self.start: dict[str, torch.Tensor] = {}
        self.moments = 0

    def attach(self, engine: PretrainingTrainer) -> None:
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.completed)

    def started(self, engine: PretrainingTrainer) -> None:
        self.start = {name: tensor.clone() for name, tensor in engine.method.state_dict().items()}
        self.moments = len(engine.optimizer.state)

    def completed(self, engine: PretrainingTrainer) -> None:
        images = engine.state.batch["index"].tolist()
        self.seen.append((images, engine.data_epoch, engine.optimizer.param_groups[0]["lr"]))


def build(folder: Path, continued: Path | None, epochs: int, **changes: Any) -> tuple[PretrainingTrainer, Steps]:
    steps, kind = Steps(), changes.pop("kind", KIND)
    trainer = tiny_run.build(
        folder, epochs=epochs, handlers=[ContinuedRun(continued, kind), steps, *changes.pop("handlers", [])], **changes
    )
    trainer.handlers[0].fingerprint |= kind | {"optimizer": changes.pop("optimizer", "AdamW")}
    return trainer, steps


@pytest.fixture
def first(tmp_path: Path) -> PretrainingTrainer:
    trainer, _ = build(tmp_path / "first", None, 2)
    trainer.run()
    return trainer


def test_everything_that_was_learnt_goes_on(first: PretrainingTrainer, tmp_path: Path) -> None:
    trainer, steps = build(tmp_path / "longer", tmp_path / "first", 3)
    trainer.run()
    learnt = first.method.state_dict()
    assert all(tensor.equal(learnt[name]) for name, tensor in steps.start.items())  # queue and momentum copy too
    assert steps.moments == len(first.optimizer.state) > 0
    assert [epoch for _, epoch, _ in steps.seen] == [2] * STEPS + [3] * STEPS + [4] * STEPS
    for number in (2, 3, 4):  # the order is that of the epochs that follow
        images = [one for batch, epoch, _ in steps.seen for one in batch if epoch == number]
        assert images == epoch_order(44, 3, number)(torch.arange(STEPS * 8).numpy()).tolist()
    fresh, expected = build(tmp_path / "fresh", None, 3)
    fresh.run()  # the schedule is that of a run of its own, with its warm-up
    assert [rate for _, _, rate in steps.seen] == [rate for _, _, rate in expected.seen]
    assert not any(
        tensor.equal(fresh.method.state_dict()[name]) for name, tensor in steps.start.items() if "weight" in name
    )


@pytest.mark.parametrize("stop", [1, STEPS, STEPS + 2])
def test_a_continued_run_resumes_exactly(first: PretrainingTrainer, tmp_path: Path, stop: int) -> None:
    whole, expected = build(tmp_path / "whole", tmp_path / "first", 3, checkpoint_every=1)
    whole.run()
    part, seen = build(tmp_path / "part", tmp_path / "first", 3, checkpoint_every=1)
    part.add_event_handler(Events.ITERATION_COMPLETED(once=stop), lambda engine: engine.terminate(skip_completed=True))
    part.run()
    (tmp_path / "first").rename(tmp_path / "away")  # not needed any more
    rest, after = build(tmp_path / "part", tmp_path / "first", 3, checkpoint_every=1)
    rest.run()
    assert seen.seen[: len(expected.seen) - len(after.seen)] + after.seen == expected.seen
    assert len(after.seen) >= len(expected.seen) - stop
    for name, tensor in whole.method.state_dict().items():
        assert tensor.equal(rest.method.state_dict()[name]), name


def test_a_continued_run_can_be_continued(first: PretrainingTrainer, tmp_path: Path) -> None:
    build(tmp_path / "second", tmp_path / "first", 1)[0].run()
    trainer, steps = build(tmp_path / "third", tmp_path / "second", 1)
    trainer.run()
    assert {epoch for _, epoch, _ in steps.seen} == {3}


def test_the_new_settings_of_the_optimizer_hold(first: PretrainingTrainer, tmp_path: Path) -> None:
    trainer, _ = build(tmp_path / "longer", tmp_path / "first", 1)
    trainer.optimizer.param_groups[0]["betas"] = (0.8, 0.9)
    trainer.run()
    assert trainer.optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_another_kind_of_run_is_refused(first: PretrainingTrainer, tmp_path: Path) -> None:
    for name in KIND:
        trainer, _ = build(tmp_path / name, tmp_path / "first", 1, kind=KIND | {name: "other"})
        with pytest.raises(TrainingError, match=f"with another {name}"):
            trainer.run()
    with pytest.raises(TrainingError, match="nowhere has no checkpoints"):
        build(tmp_path / "b", tmp_path / "nowhere", 1)[0].run()
    larger = tiny_run.TinyMethod()
    larger.queue = torch.randn(16, 6)
    with pytest.raises(TrainingError, match="queue_size"):
        build(tmp_path / "c", tmp_path / "first", 1, method=larger)[0].run()


def test_another_optimizer_starts_with_fresh_moments(
    first: PretrainingTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from monai_ssl_transfer.engines.checkpoints.files import checkpoints, write_checkpoint

    (path, *_) = checkpoints(tmp_path / "first" / "checkpoints")
    content = torch.load(path, weights_only=True)
    content["fingerprint"]["optimizer"] = "LARS"
    write_checkpoint(path, content)
    trainer, steps = build(tmp_path / "longer", tmp_path / "first", 1)
    trainer.run()
    assert steps.moments == 0
    assert "has another optimizer" in caplog.text


def test_other_groups_of_parameters_start_with_fresh_moments(
    first: PretrainingTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from monai_ssl_transfer.engines.checkpoints.files import checkpoints, write_checkpoint

    (path, *_) = checkpoints(tmp_path / "first" / "checkpoints")
    content = torch.load(path, weights_only=True)
    group = content["optimizer"]["param_groups"][0]
    content["optimizer"]["param_groups"].append({**group, "params": [group["params"].pop()], "lr_factor": 0.2})
    write_checkpoint(path, content)
    trainer, steps = build(tmp_path / "longer", tmp_path / "first", 1)
    trainer.run()
    assert steps.moments == 0
    assert "has another layer_decay" in caplog.text


def test_two_starts_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="either --encoder_weights or --continued_run"):
        ContinuedRun(tmp_path, KIND, encoder_weights="encoder.safetensors")
    ContinuedRun(None, KIND, encoder_weights="encoder.safetensors")
