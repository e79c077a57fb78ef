from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_run
import torch
from monai.handlers import CheckpointSaver, StatsHandler, from_engine
from torch import Tensor

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, collate_slices
from monai_ssl_transfer.engines.pretraining import StepOptions
from monai_ssl_transfer.errors import TrainingError


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


class _Linear(tiny_run.SSLMethod):
    """Mean of a linear map: gradients of two batches of 4 add up to those of one batch of 8."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(144, 1))
        self.progress: list[float] = []

    def forward(
        self, views: list[Tensor], progress: float, keys: object = None, gradients: object = None
    ) -> dict[str, Tensor]:
        embedding = self.encoder(views[0].flatten(1))
        return {"loss": embedding.square().mean(), "embedding": embedding.detach()}

    def after_step(self, progress: float) -> None:
        self.progress.append(progress)


def _linear_run(folder: Path, batch: int, options: StepOptions) -> _Linear:
    method = _Linear()
    trainer = tiny_run.build(folder, epochs=1, method=method, options=options)
    trainer.data_loader = tiny_run.slice_loader(trainer.data_loader.dataset, ArithmeticBatchSampler(44, batch, seed=3))
    trainer.state.epoch_length = len(trainer.data_loader)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    trainer.optimizer.step = lambda: None  # keep the gradients where they can be compared
    gradients = []
    trainer.optimizer.zero_grad = lambda set_to_none=True: (
        gradients.append(method.encoder.weight.grad.clone()) if method.encoder.weight.grad is not None else None,
        method.zero_grad(),
    )
    trainer.run()
    method.gradients = gradients  # type: ignore[assignment]
    return method


def test_accumulation_equals_the_larger_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = _linear_run(tmp_path / "a", 8, StepOptions())
    torch.manual_seed(0)
    halves = _linear_run(tmp_path / "b", 4, StepOptions(accumulation=2))
    assert len(whole.gradients) == 5
    assert len(halves.gradients) == 6  # 11 batches of 4: five pairs and one alone
    for first, second in zip(whole.gradients, halves.gradients, strict=False):
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-7)
    assert whole.progress == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert halves.progress[-1] == 1.0


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
    assert str(numbers) in str(caught.value)
    assert "step_0000000006.ckpt" in str(caught.value)


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
