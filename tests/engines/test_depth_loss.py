"""The depth loss against a plain implementation of its publication, its invariances, and its degenerate cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.engines.transfer.depth_loss import ScaleShiftInvariantLoss, scale_and_shift
from monai_ssl_transfer.errors import TrainingError


def draw(seed: int, images: int = 2, rows: int = 19, columns: int = 26) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction that rises with the target, (B, 1, H, W) float64, and a target with holes."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.05, 1, (images, 1, rows, columns))
    prediction = 0.7 * target + 0.3 * rng.normal(0, 0.2, target.shape)
    target[rng.random(target.shape) < 0.2] = 0
    return torch.tensor(prediction), torch.tensor(target)


def published(prediction: np.ndarray, target: np.ndarray, weight: float = 0.5, scales: int = 4) -> float:
    """Equations 1, 4, 5 and 11, pixel by pixel, for one image (H, W)."""
    valid = target > 0
    design = np.stack([prediction[valid], np.ones(valid.sum())], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(design, target[valid], rcond=None)
    error = scale * prediction + shift - target
    loss = sum(error[i, j] ** 2 for i, j in zip(*np.nonzero(valid), strict=True)) / (2 * valid.sum())
    for k in range(scales):
        e, v = error[:: 2**k, :: 2**k], valid[:: 2**k, :: 2**k]
        rows, columns = e.shape
        term = 0.0
        for i in range(rows):
            for j in range(columns):
                if j + 1 < columns and v[i, j] and v[i, j + 1]:
                    term += abs(e[i, j + 1] - e[i, j])
                if i + 1 < rows and v[i, j] and v[i + 1, j]:
                    term += abs(e[i + 1, j] - e[i, j])
        loss += weight * term / v.sum()
    return float(loss)


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_publication(seed: int, upright: bool):
    prediction, target = draw(seed)
    expected = np.mean([published(p[0].numpy(), t[0].numpy()) for p, t in zip(prediction, target, strict=True)])
    assert ScaleShiftInvariantLoss(upright=upright)(prediction, target).item() == pytest.approx(expected, rel=1e-12)


def test_published_loss_also_of_a_prediction_that_falls():
    prediction, target = draw(5, images=1)
    expected = published(-prediction[0, 0].numpy(), target[0, 0].numpy())
    assert ScaleShiftInvariantLoss(upright=False)(-prediction, target).item() == pytest.approx(expected, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_invariant_to_scale_and_shift(seed: int, scale: float, shift: float):
    prediction, target = draw(seed)
    loss = ScaleShiftInvariantLoss()
    assert loss(scale * prediction + shift, target).item() == pytest.approx(loss(prediction, target).item(), rel=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_a_perfect_prediction_of_any_scale_costs_nothing(seed: int, scale: float, shift: float):
    _, target = draw(seed)
    assert ScaleShiftInvariantLoss()(scale * target + shift, target).item() == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_near_taken_for_far_costs_more_than_nothing_known(seed: int):
    prediction, target = draw(seed, images=1)
    upright, free = (ScaleShiftInvariantLoss(gradient_weight=0, upright=on) for on in (True, False))
    constant = upright(torch.zeros_like(prediction), target).item()
    assert free(-prediction, target).item() == pytest.approx(free(prediction, target).item(), rel=1e-9)
    assert upright(prediction, target).item() < constant < upright(-prediction, target).item()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, -3.0, float("nan"), 1e9]))
def test_pixels_without_depth_do_not_matter(seed: int, value: float):
    prediction, target = draw(seed)
    other = torch.where(target > 0, prediction, value)
    assert ScaleShiftInvariantLoss()(other, target).item() == pytest.approx(
        ScaleShiftInvariantLoss()(prediction, target).item(), rel=1e-9
    )


def test_least_squares_of_a_large_frame_in_single_precision():
    rng = np.random.default_rng(0)
    prediction = 100 + rng.random((1, 1080, 1350))
    target = 0.25 * prediction - 24.5 + rng.normal(0, 0.01, prediction.shape)
    expected = np.polyfit(prediction.ravel(), target.ravel(), 1)
    found = scale_and_shift(
        torch.tensor(prediction).float(), torch.tensor(target).float(), torch.ones(prediction.shape, dtype=torch.bool)
    )
    assert found[0].item() == pytest.approx(expected[0], rel=1e-3)
    assert found[0].item() * prediction.mean() + found[1].item() == pytest.approx(target.mean(), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_a_constant_prediction_is_aligned_to_the_mean(dtype: torch.dtype, value: float):
    _, target = draw(1, images=1)
    prediction = torch.full_like(target, value, dtype=dtype).requires_grad_()
    mask = target > 0
    scale, shift = scale_and_shift(prediction, target, mask)
    assert scale.item() == 0
    assert shift.item() == pytest.approx(target[mask].mean().item(), rel=1e-6)
    loss = ScaleShiftInvariantLoss(gradient_weight=0)(prediction, target.to(dtype))
    assert loss.item() == pytest.approx(target[mask].var(correction=0).item() / 2, rel=1e-5)
    loss.backward()
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()


def test_images_without_depth_add_nothing():
    prediction, target = draw(2, images=3)
    expected = ScaleShiftInvariantLoss()(prediction[[0, 2]], target[[0, 2]])
    target[1] = 0
    leaf = prediction.clone().requires_grad_()
    loss = ScaleShiftInvariantLoss()(leaf, target)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert not leaf.grad[1].any()
    assert leaf.grad[0].any()


def test_a_batch_without_depth_costs_nothing_and_can_be_stepped():
    leaf = draw(3)[0].requires_grad_()
    loss = ScaleShiftInvariantLoss()(leaf, torch.zeros_like(leaf))
    loss.backward()
    assert loss.item() == 0
    assert leaf.grad is not None
    assert not leaf.grad.any()


def test_gradients_are_those_of_finite_differences():
    prediction, target = draw(4, images=2, rows=6, columns=7)
    target[1] = 0
    assert torch.autograd.gradcheck(
        lambda x: ScaleShiftInvariantLoss(scales=2)(x, target), prediction.clone().requires_grad_()
    )


def test_an_output_of_two_channels_is_refused():
    with pytest.raises(TrainingError, match="out_channels 1"):
        ScaleShiftInvariantLoss()(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8))
