from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run
import torch
from ignite.engine import Events
from monai.handlers import CheckpointSaver, StatsHandler, from_engine
from torch import Tensor

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, collate_slices
from monai_ssl_transfer.engines.pretraining.step import Piece
from monai_ssl_transfer.engines.pretraining.trainer import StepOptions
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys


def _flat(method: torch.nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().float() for value in method.state_dict().values()])


def test_equals_a_bare_loop(tmp_path: Path) -> None:
    """The trainer adds nothing to the mathematics: a hand-written loop gives bitwise the same weights."""
    trainer = tiny_run.build(tmp_path, epochs=2)
    trainer.run()

    torch.manual_seed(3)
    method = tiny_run.TinyMethod().train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.01, weight_decay=0.1)
    dataset = SliceDataset(tiny_run.TinyStore(), "single")
    sampler = ArithmeticBatchSampler(44, 8, seed=3)
    step = 0
    for epoch in range(2):
        for numbers in sampler:
            batch = collate_slices([dataset[number] for number in numbers])
            # warm-up is a tenth of the run: step 1 of 10; then a cosine of the steps that were made
            progress = step / 10
            share = (
                1.0
                if step == 0
                else (1 + torch.tensor((progress - 0.1) / 0.9 * torch.pi, dtype=torch.float64).cos().item()) / 2
            )
            for group in optimizer.param_groups:
                group["lr"] = 0.2 * share * 8 / 256
                group["weight_decay"] = 0.3 + (0.1 - 0.3) * (1 + math.cos(progress * math.pi)) / 2
            views = tiny_run.tiny_views(batch["image"], batch["size"], batch["index"], epoch)
            method(views, progress)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            method.after_step(step / 10)
    assert torch.allclose(_flat(method), _flat(trainer.method), rtol=0, atol=1e-6)


class _At:
    """A handler that does one thing at one event."""

    def __init__(self, event: Events, action: Callable[[tiny_run.PretrainingTrainer], None]) -> None:
        self.event, self.action = event, action

    def attach(self, engine: tiny_run.PretrainingTrainer) -> None:
        engine.add_event_handler(self.event, self.action)


class _Linear(tiny_run.SSLMethod):
    """Mean of a linear map; its gradients are kept before the optimizer gets them."""

    separable = True

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(144, 1, bias=False))
        self.progress: list[float] = []
        self.pieces: list[int] = []

    def represent(self, views: list[Tensor], progress: float, keys: object = None) -> dict[str, Tensor]:
        self.pieces.append(len(views[0]))
        embedding = self.encoder(views[0].flatten(1))
        return {"linear": embedding, "embedding": embedding.detach()}

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        return {"loss": representations["linear"].square().mean(), "largest": torch.tensor(progress)}

    def after_step(self, progress: float) -> None:
        self.progress.append(progress)


class _Contrasting(_Linear):
    """Compares images with each other, so that the mean over pieces would be another loss."""

    separable = False

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        difference = representations["linear"] - representations["linear"].T
        return {"loss": difference.square().mean()}


def _linear_run(
    folder: Path, kind: type[_Linear], accumulation: int
) -> tuple[_Linear, list[Tensor], list[float], list[Tensor]]:
    torch.manual_seed(0)
    method = kind()
    gradients, losses, embeddings = [], [], []

    handlers = [
        _At(Events.ITERATION_COMPLETED, lambda engine: embeddings.append(engine.state.embedding)),
        _At(Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output[0]["loss"]))),
    ]
    method.encoder.weight.register_post_accumulate_grad_hook(
        lambda weight: gradients.append(weight.grad.clone())  # of several pieces the sum so far
    )
    options = StepOptions(accumulation=accumulation)
    tiny_run.build(folder, epochs=1, method=method, options=options, handlers=handlers).run()
    return method, gradients, losses, embeddings


@pytest.mark.parametrize("kind", [_Linear, _Contrasting])
def test_pieces_give_the_gradients_of_the_whole_batch(kind: type[_Linear], tmp_path: Path) -> None:
    whole, expected, losses, embeddings = _linear_run(tmp_path / "a", kind, 1)
    pieces, sums, losses_again, embeddings_again = _linear_run(tmp_path / "b", kind, 4)
    # one iteration is one optimizer step in both runs
    assert whole.progress == pieces.progress == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(whole.pieces) == {8} and set(pieces.pieces) == {2}
    for first, second in zip(expected, sums[3::4], strict=True):
        assert torch.allclose(first, second, rtol=1e-4, atol=1e-6)
    assert losses == pytest.approx(losses_again, rel=1e-4)
    for first, second in zip(embeddings, embeddings_again, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_representing_twice_moves_batch_norm_once_and_draws_the_same_dropout(tmp_path: Path) -> None:
    """A step in one piece that is forced through the two passes is the plain step, bit for bit."""
    plain = tiny_run.build(tmp_path / "a", epochs=2)
    plain.run()
    twice = tiny_run.build(tmp_path / "b", epochs=2)
    gradients = twice.gradients

    def in_two_passes(views: list[Tensor], progress: float, keys: SampleKeys) -> dict[str, Tensor]:
        return gradients._cached([Piece(views, keys)], progress)

    twice.gradients = in_two_passes  # type: ignore[assignment]
    twice.run()
    for name, value in plain.method.state_dict().items():
        assert torch.allclose(value, twice.method.state_dict()[name], rtol=1e-5, atol=1e-6), name


def test_unequal_pieces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"8 images .* 3 equal pieces: choose an --accumulation"):
        tiny_run.build(tmp_path, options=StepOptions(accumulation=3)).run()


def test_an_epoch_offset_moves_order_views_and_keys(tmp_path: Path) -> None:
    seen: list[tuple[int, list[int], int]] = []

    class _Keys(tiny_run.TinyMethod):
        def forward(
            self, views: list[Tensor], progress: float, keys: SampleKeys | None = None, gradients: object = None
        ) -> dict[str, Tensor]:
            assert keys is not None
            seen.append((keys.epoch, keys.sample.tolist(), epochs[-1]))
            return super().forward(views, progress, keys)

    epochs: list[int] = []

    def views(image: Tensor, size: Tensor, sample: Tensor, epoch: int) -> list[Tensor]:
        epochs.append(epoch)
        return tiny_run.tiny_views(image, size, sample, epoch)

    trainer = tiny_run.build(tmp_path, epochs=1, method=_Keys(), views=views)
    trainer.epoch_offset = 5
    trainer.run()
    sampler = ArithmeticBatchSampler(44, 8, seed=3)
    sampler.set_position(5, 0)
    assert seen == [(5, numbers, 5) for numbers in sampler]


def test_lists_of_stores_reach_the_views_and_their_keys_the_method(tmp_path: Path) -> None:
    """A batch of two stores: the views get lists, and the method draws from the number over both stores."""
    keys_seen: list[list[int]] = []

    class _Keys(tiny_run.TinyMethod):
        def forward(
            self, views: list[Tensor], progress: float, keys: SampleKeys | None = None, gradients: object = None
        ) -> dict[str, Tensor]:
            assert keys is not None
            keys_seen.append(keys.sample.tolist())
            return super().forward(views, progress, keys)

    def views(image: list[Tensor], size: list[Tensor], sample: list[Tensor], epoch: int) -> list[Tensor]:
        parts = [tiny_run.tiny_views(*one, epoch) for one in zip(image, size, sample, strict=True)]
        return [torch.cat(view) for view in zip(*parts, strict=True)]

    store = tiny_run.TinyStore()
    dataset = SliceDataset(store, "single")
    first, second = collate_slices([dataset[0], dataset[1]]), collate_slices([dataset[1], dataset[2], dataset[3]])
    batch = {name: [first[name], second[name]] for name in first} | {"key": torch.tensor([0, 1, 45, 46, 47])}
    trainer = tiny_run.build(tmp_path, epochs=1, method=_Keys(), views=views)
    trainer.data_loader, trainer.state.epoch_length = [batch], 1
    trainer.run()
    assert keys_seen == [[0, 1, 45, 46, 47]]
    assert trainer.state.embedding.shape == (5, 6)


class _NotANumberAt(tiny_run.TinyMethod):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        output = super().forward(views, progress)
        self.left -= 1
        return output if self.left else {**output, "loss": output["loss"] * float("nan")}


def test_a_loss_that_is_no_number_stops_with_all_facts(tmp_path: Path) -> None:
    trainer = tiny_run.build(tmp_path, method=_NotANumberAt(7), checkpoint_every=2)
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    sampler = ArithmeticBatchSampler(44, 8, seed=3)
    sampler.set_position(1, 1)
    numbers = next(iter(sampler))
    assert "step 7 (epoch 2)" in str(caught.value)
    assert f"images {', '.join(map(str, numbers))}; look at" in str(caught.value)
    assert "--on_nonfinite skip" in str(caught.value) and f"--continued_run {tmp_path} and" in str(caught.value)
    assert "step_0000000006.ckpt" in str(caught.value)


class _NotANumberAtSteps(tiny_run.TinyMethod):
    """Poisons everything it can reach: loss, batch-norm statistics and queue."""

    def __init__(self, steps: set[int], gradient_only: bool = False) -> None:
        super().__init__()
        self.bad, self.gradient_only, self.calls = steps, gradient_only, 0

    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls not in self.bad:
            return super().forward(views, progress)
        if self.gradient_only:
            output = super().forward(views, progress)
            zero = self.encoder[0].weight.sum() * 0.0  # the root of zero has an infinite slope
            return {**output, "loss": output["loss"] + zero.abs().sqrt()}
        return super().forward([view * float("nan") for view in views], progress)


def test_skipped_steps_leave_no_trace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    method = _NotANumberAtSteps({3, 7, 8})
    states: list[dict[str, Tensor]] = []

    def keep(_: tiny_run.PretrainingTrainer) -> None:
        states.append({name: value.clone() for name, value in method.state_dict().items()})

    options = StepOptions(on_nonfinite="skip", clip_norm=1.0)
    trainer = tiny_run.build(tmp_path, method=method, options=options, handlers=[_At(Events.ITERATION_COMPLETED, keep)])
    trainer.run()
    for step in (3, 7, 8):
        for name, value in states[step - 1].items():
            assert torch.equal(value, states[step - 2][name]), (step, name)
    assert not torch.equal(states[8]["queue"], states[7]["queue"])
    assert all(bool(value.isfinite().all()) for value in method.state_dict().values())
    assert math.isfinite(float(trainer.state.output[0]["loss"]))
    assert trainer.state.metrics["skipped"] == 3
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["skipped"] for record in records] == [1, 3, 3]
    assert caplog.text.count("skipped") == 3


def test_a_gradient_that_is_no_number_is_noticed_without_clipping(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"The gradient is (nan|inf) at step 4 \(epoch 1\)"):
        tiny_run.build(tmp_path, method=_NotANumberAtSteps({4}, gradient_only=True), options=StepOptions()).run()


def test_too_many_skipped_steps_in_a_row_stop(tmp_path: Path) -> None:
    method = _NotANumberAtSteps(set(range(4, 100)))
    trainer = tiny_run.build(tmp_path, epochs=6, method=method, options=StepOptions(on_nonfinite="skip"))
    with pytest.raises(TrainingError, match=r"20 times in a row, now at step 23 "):
        trainer.run()


def test_bf16_on_cpu_and_stock_handlers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MONAI's handlers with the transforms that `--tracking mlflow` gives them see the loss as a scalar."""
    stats = StatsHandler(name=None, output_transform=from_engine(["loss"], first=True))
    seen = []
    kinds = []

    class _Kinds(tiny_run.TinyMethod):
        def forward(
            self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
        ) -> dict[str, Tensor]:
            output = super().forward(views, progress)
            kinds.append(output["embedding"].dtype)
            seen.append(progress)
            return output

    with caplog.at_level("INFO"):
        method = _Kinds()
        saver = CheckpointSaver(str(tmp_path / "stock"), {"method": method}, save_final=True)
        options = StepOptions(precision="bf16")
        tiny_run.build(tmp_path, epochs=1, method=method, options=options, handlers=[stats, saver]).run()
    kept = torch.load(next((tmp_path / "stock").glob("*.pt")), weights_only=True)
    assert all(torch.equal(kept[name], value) for name, value in method.state_dict().items())
    assert set(kinds) == {torch.bfloat16}
    assert seen == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert caplog.text.count("Loss: ") == 5


def test_channels_last_reaches_views_and_weights(tmp_path: Path) -> None:
    strides = []

    class _Strides(tiny_run.TinyMethod):
        def forward(
            self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
        ) -> dict[str, Tensor]:
            strides.append(views[0].stride(1))
            return super().forward([view[:, :1] for view in views], progress)

    def three_channels(*arguments: Tensor) -> list[Tensor]:
        return [view.expand(-1, 3, -1, -1).contiguous() for view in tiny_run.tiny_views(*arguments)]

    options = StepOptions(channels_last=True)
    trainer = tiny_run.build(tmp_path, epochs=1, method=_Strides(), views=three_channels, options=options)
    trainer.run()
    assert set(strides) == {1}
    assert trainer.method.encoder[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_bad_options_are_refused() -> None:
    with pytest.raises(TrainingError, match="fp32 or bf16"):
        StepOptions(precision="fp16")
    with pytest.raises(TrainingError, match="1 or more"):
        StepOptions(accumulation=0)
    with pytest.raises(TrainingError, match="stop or skip"):
        StepOptions(on_nonfinite="ignore")
