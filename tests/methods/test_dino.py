"""Momentum, temperature and freezing against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_encoder import TinyEncoder, random_views

from monai_ssl_transfer.methods import DINO, DINOHeadOptions, DINOSchedule, parameter_groups
from monai_ssl_transfer.methods.momentum import cosine_to_one, momentum_copy
from monai_ssl_transfer.networks import build_encoder


@pytest.mark.parametrize(
    ("progress", "momentum"),
    [(0.0, 0.996), (1 / 3, 0.997), (0.5, 0.998), (2 / 3, 0.999), (1.0, 1.0)],
)
def test_momentum_rises_along_a_cosine(progress: float, momentum: float) -> None:
    assert cosine_to_one(0.996, progress) == pytest.approx(momentum, abs=1e-12)


@pytest.mark.parametrize(
    ("progress", "temperature"), [(0.0, 0.04), (0.1, 0.05), (0.15, 0.055), (0.3, 0.07), (0.8, 0.07)]
)
def test_teacher_temperature_warms_up(progress: float, temperature: float) -> None:
    schedule = DINOSchedule(warmup_temperature=0.04, teacher_temperature=0.07, warmup=0.3)
    assert schedule.teacher_temperature_at(progress) == pytest.approx(temperature, abs=1e-12)


def test_teacher_temperature_without_warmup() -> None:
    assert DINOSchedule(teacher_temperature=0.06).teacher_temperature_at(0.0) == 0.06


def directions(method: DINO) -> torch.Tensor:
    return torch.nn.functional.normalize(method.projection_head.last_layer.weight_v.detach(), dim=1)


@pytest.mark.parametrize(("progress", "frozen"), [(0.0, True), (0.099, True), (0.1, False), (0.9, False)])
def test_prototypes_stand_still_at_first(progress: float, frozen: bool) -> None:
    torch.manual_seed(0)
    method = DINO(TinyEncoder(), 24, DINOSchedule(freeze_last_layer=0.1), DINOHeadOptions(32, 8))
    optimizer = torch.optim.AdamW(parameter_groups(method, 0.4), lr=0.01)
    before, length = directions(method), method.projection_head.last_layer.weight_g.clone()
    for seed in range(3):
        method(random_views(seed), progress)["loss"].backward()
        optimizer.step()
    moved = (directions(method) - before).abs().max().item()
    assert moved < 1e-6 if frozen else moved > 1e-3
    assert torch.equal(method.projection_head.last_layer.weight_g, length)


def test_teacher_has_no_stochastic_depth() -> None:
    encoder = build_encoder("vit_tiny", image_size=32, drop_path=0.5).train()
    image = torch.randn(4, 3, 32, 32)
    assert not torch.equal(encoder(image), encoder(image))
    teacher = momentum_copy(encoder)
    assert teacher.training
    assert torch.equal(teacher(image), teacher(image))
    assert not torch.equal(encoder(image), encoder(image))
