"""DINO: its loss against plain loops; centre, momentum, temperature and freezing against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_distillation import multi_crop, plain, softmax
from tiny_encoder import TinyEncoder, random_views, tiny_vit
from torch import nn

from monai_ssl_transfer.methods import DINO, DINOHeadOptions, DINOSchedule, parameter_groups
from monai_ssl_transfer.methods.momentum import cosine_to_one, momentum_copy
from monai_ssl_transfer.networks import build_encoder


def small_dino(encoder: nn.Module | None = None, **schedule: float) -> DINO:
    torch.manual_seed(0)
    method = DINO(encoder or TinyEncoder(), 24, DINOSchedule(**schedule), DINOHeadOptions(32, 8))
    for parameter in method.teacher_encoder.parameters():
        parameter.data += 0.1
    return method


@pytest.mark.parametrize("vit", [False, True])
@pytest.mark.parametrize("sizes", [(16, 16), (16, 16, 8, 8, 8)])
def test_loss_is_equation_3_with_centring(sizes: tuple[int, ...], vit: bool) -> None:
    schedule = {"teacher_temperature": 0.07, "warmup_temperature": 0.05, "warmup": 0.4, "student_temperature": 0.15}
    method = small_dino(tiny_vit() if vit else None, **schedule).eval()
    method.centre.value[:] = torch.randn(24) * 0.1
    centre = plain(method.centre.value)
    views = random_views(0, sizes)
    student = [plain(method.projection_head(method.encoder(v))) for v in views]
    teacher = [plain(method.teacher_projection_head(method.teacher_encoder(v))) for v in views[:2]]
    output = method(views, 0.2)  # half way through the warm-up
    expected = multi_crop(teacher, student, centre, 0.06, 0.15).mean()
    assert output["loss"].item() == pytest.approx(expected, rel=1e-5)
    shares = [softmax((row - centre) / 0.06) for row in teacher[0]]
    assert output["teacher_entropy"].item() == pytest.approx(
        np.mean([-(p * np.log(p)).sum() for p in shares]), rel=1e-4
    )


def test_centre_is_equation_4_and_moves_once_per_step() -> None:
    method = small_dino(centre_momentum=0.9)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # pieces would have other statistics than the whole
    views = random_views(0)
    start = torch.randn(24) * 0.1
    method.centre.value[:] = start
    teacher = torch.cat([method.teacher_projection_head(method.teacher_encoder(v)) for v in views])
    expected = 0.9 * plain(start) + 0.1 * plain(teacher).mean(axis=0)
    for pieces in ([slice(0, 6)], [slice(0, 4), slice(4, 6)]):
        method.centre.value[:] = start
        for piece in pieces:
            method([view[piece] for view in views], 0.3)
            assert torch.equal(method.centre.value, start)
        method.after_step(1.0)
        assert np.allclose(plain(method.centre.value), expected, atol=1e-6)
        method.after_step(1.0)  # nothing new
        assert np.allclose(plain(method.centre.value), expected, atol=1e-6)


def test_loss_of_a_batch_is_the_mean_of_its_pieces() -> None:
    method = small_dino().eval()
    assert method.separable
    views = random_views(0, (16, 16, 8))
    whole = method(views, 0.3)["loss"].item()
    halves = [method([view[piece] for view in views], 0.3)["loss"].item() for piece in (slice(0, 3), slice(3, 6))]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-6)


def test_a_step_that_was_left_out_does_not_move_the_centre() -> None:
    method = small_dino()
    method([view * float("nan") for view in random_views(0)], 0.1)
    method(random_views(1), 0.2)
    method.after_step(0.3)
    assert torch.isfinite(method.centre.value).all()


def test_evaluation_leaves_the_centre_alone() -> None:
    method = small_dino().eval()
    method(random_views(0), 0.3)
    method.after_step(0.3)
    assert not method.centre.value.any()


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


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize(("progress", "frozen"), [(0.0, True), (0.099, True), (0.1, False), (0.9, False)])
def test_prototypes_stand_still_at_first(progress: float, frozen: bool, adaptive: bool) -> None:
    torch.manual_seed(0)
    method = DINO(TinyEncoder(), 24, DINOSchedule(freeze_last_layer=0.1), DINOHeadOptions(32, 8))
    groups = parameter_groups(method, 0.4)
    optimizer = torch.optim.AdamW(groups, lr=0.01) if adaptive else torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    before, length = method.projection_head.last_layer.state_dict(), method.projection_head.last_layer.weight_g.clone()
    before = {name: value.clone() for name, value in before.items()}
    for seed in range(3):
        method(random_views(seed), progress)["loss"].backward()
        method.before_step(progress)
        optimizer.step()
    after = method.projection_head.last_layer.state_dict()
    assert torch.equal(before["weight_v"], after["weight_v"]) == frozen
    assert torch.equal(method.projection_head.last_layer.weight_g, length)


def test_teacher_has_no_stochastic_depth() -> None:
    encoder = build_encoder("vit_tiny", image_size=32, drop_path=0.5).train()
    image = torch.randn(4, 3, 32, 32)
    assert not torch.equal(encoder(image), encoder(image))
    teacher = momentum_copy(encoder)
    assert teacher.training
    assert torch.equal(teacher(image), teacher(image))
    assert not torch.equal(encoder(image), encoder(image))


def test_training_without_local_views_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    method = small_dino()
    method(random_views(0, (16, 16, 8)), 0.0)
    assert not caplog.messages
    method = small_dino()
    for seed in range(2):
        method(random_views(seed, (16, 16)), 0.0)
    (said,) = caplog.messages
    assert "--recipe_name dino" in said
