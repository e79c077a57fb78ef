"""The methods' losses against the papers' formulas, written here in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder, random_views
from torch import nn

from monai_ssl_transfer.methods import DINO, MoCoV2, SimCLR


def unit(x: torch.Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_equation_1(temperature: float) -> None:
    torch.manual_seed(0)
    method = SimCLR(TinyEncoder(), 32, 8, temperature).eval()
    views = random_views(0)
    z = np.concatenate([unit(method.projection_head(method.encoder(view))) for view in views])
    n = len(views[0])
    total = 0.0
    for i in range(2 * n):
        similarities = [z[i] @ z[k] / temperature for k in range(2 * n)]
        partner = (i + n) % (2 * n)
        others = sum(math.exp(similarities[k]) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(similarities[partner]) / others)
    assert method(views, 0.0)["loss"].item() == pytest.approx(total / (2 * n), rel=1e-5)
    assert method.collapsed_loss == pytest.approx(math.log(2 * n - 1))


def test_moco_is_equation_1() -> None:
    torch.manual_seed(0)
    method = MoCoV2(TinyEncoder(), queue_size=10, hidden_dim=32, output_dim=8, temperature=0.2).eval()
    for parameter in method.momentum_encoder.parameters():
        parameter.data += 0.1  # the keys must come from the momentum encoder
    views = random_views(0)
    q = unit(method.projection_head(method.encoder(views[0])))
    k = unit(method.momentum_projection_head(method.momentum_encoder(views[1])))
    negatives = method.queue.keys.double().numpy().copy()
    total = 0.0
    for i in range(len(q)):
        positive = math.exp(q[i] @ k[i] / 0.2)
        total -= math.log(positive / (positive + sum(math.exp(q[i] @ n / 0.2) for n in negatives)))
    assert method(views, 0.0)["loss"].item() == pytest.approx(total / len(q), rel=1e-5)


def test_radnet_has_its_own_head_without_norms_and_biases() -> None:
    torch.manual_seed(0)
    head = SimCLR(TinyEncoder(), output_dim=256, radnet_head=True).projection_head
    weights = list(head.parameters())
    assert [tuple(weight.shape) for weight in weights] == [(2048, 16), (2048, 2048), (256, 2048)]
    assert [type(layer).__name__ for layer in head.layers] == ["Linear", "ReLU", "Linear", "Sigmoid", "Linear"]
    x = torch.randn(3, 16)
    first, second, third = (weight.detach().double().numpy() for weight in weights)
    hidden = np.maximum(x.double().numpy() @ first.T, 0) @ second.T
    expected = (1 / (1 + np.exp(-hidden))) @ third.T
    assert np.allclose(head(x).detach().numpy(), expected, atol=1e-4)


def test_heads_have_the_published_shapes() -> None:
    def shapes(head: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(p.shape) for p in head.parameters() if p.ndim == 2]

    encoder = TinyEncoder()
    assert shapes(SimCLR(encoder).projection_head) == [(2048, 16), (128, 2048)]
    assert shapes(SimCLR(encoder, layers=3).projection_head) == [(2048, 16), (2048, 2048), (128, 2048)]
    moco = MoCoV2(encoder)
    assert shapes(moco.projection_head) == [(2048, 16), (128, 2048)]
    assert moco.queue.keys.shape == (65536, 128)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in moco.projection_head.modules())
    dino = DINO(encoder, prototypes=1000)
    assert [s for s in shapes(dino.projection_head) if s != (1000, 1)] == [
        (2048, 16),
        (2048, 2048),
        (256, 2048),
        (1000, 256),
    ]
