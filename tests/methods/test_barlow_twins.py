"""Barlow Twins' loss and its gradient against equations 1 and 2 of the paper in float64."""

from __future__ import annotations

import pytest
import torch
from tiny_encoder import TinyEncoder, random_views
from torch import nn

from monai_ssl_transfer.methods import BarlowTwins


def equation_1(first: torch.Tensor, second: torch.Tensor, redundancy: float) -> torch.Tensor:
    """In plain sums; outputs have mean 0 and (biased) variance 1 over the images, as in batch norm (eps 1e-5)."""
    count, width = first.shape
    a, b = ((z - z.mean(0)) / torch.sqrt(((z - z.mean(0)) ** 2).mean(0) + 1e-5) for z in (first, second))
    total = torch.zeros((), dtype=torch.float64)
    for i in range(width):
        for j in range(width):
            correlation = sum(a[n, i] * b[n, j] for n in range(count)) / count
            total = total + ((1 - correlation) ** 2 if i == j else redundancy * correlation**2)
    return total


@pytest.mark.parametrize("redundancy", [0.0051, 0.3])
def test_loss_is_equation_1(redundancy: float) -> None:
    torch.manual_seed(0)
    method = BarlowTwins(TinyEncoder(), 32, 8, redundancy).eval()
    views = random_views(0)
    first, second = (method.projection_head(method.encoder(view)).detach().double() for view in views)
    expected = equation_1(first, second, redundancy).item()
    assert method(views, 0.0)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_gradient_is_that_of_equation_1() -> None:
    torch.manual_seed(0)
    pair = [torch.randn(7, 5, requires_grad=True) for _ in range(2)]
    doubles = [z.detach().double().requires_grad_() for z in pair]
    BarlowTwins(TinyEncoder(), 32, 5).compare({"first": pair[0], "second": pair[1]}, 0.0)["loss"].backward()
    equation_1(doubles[0], doubles[1], 0.0051).backward()
    for z, reference in zip(pair, doubles, strict=True):
        assert torch.allclose(z.grad.double(), reference.grad, rtol=1e-4, atol=1e-6)


def test_batch_norm_sees_one_view_at_a_time() -> None:
    torch.manual_seed(0)
    method = BarlowTwins(TinyEncoder(), 32, 8).train()
    views = random_views(0)
    views[1] = 5 * views[1]
    assert torch.allclose(method(views, 0.0)["embedding"], method.encoder(views[0]), atol=1e-6)


def test_head_has_the_published_shape() -> None:
    method = BarlowTwins(TinyEncoder())
    layers = list(method.projection_head.layers)
    assert [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Linear)] == [
        (8192, 16),
        (8192, 8192),
        (8192, 8192),
    ]
    assert all(layer.bias is None for layer in layers if isinstance(layer, nn.Linear))
    assert [type(layer).__name__ for layer in layers] == [*["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert method.collapsed_loss == 8192
