"""The methods' losses against the papers' formulas, written here in float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder, random_views
from torch import nn

from monai_ssl_transfer.methods import DINO, DINOHeadOptions, DINOSchedule, MoCoV2, SimCLR


def unit(x: torch.Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


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


@pytest.mark.parametrize("sizes", [(16, 16), (16, 16, 8, 8, 8)])
def test_dino_is_equation_3_with_centring(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    schedule = DINOSchedule(teacher_temperature=0.07, warmup_temperature=0.05, warmup=0.4, student_temperature=0.15)
    method = DINO(TinyEncoder(), 24, schedule, DINOHeadOptions(32, 8)).eval()
    for parameter in method.teacher_encoder.parameters():
        parameter.data += 0.1
    centre = torch.randn(24) * 0.1
    method.criterion.center[:] = centre
    views = random_views(0, sizes)
    s = [method.projection_head(method.encoder(v)).detach().double().numpy() for v in views]
    t = [method.teacher_projection_head(method.teacher_encoder(v)).double().detach().numpy() for v in views[:2]]
    terms = []
    for i, teacher in enumerate(t):
        for j, student in enumerate(s):
            if i != j:
                for b in range(len(teacher)):
                    p = softmax((teacher[b] - centre.double().numpy()) / 0.06)  # half way through the warm-up
                    terms.append(-(p * np.log(softmax(student[b] / 0.15))).sum())
    output = method(views, 0.2)
    assert output["loss"].item() == pytest.approx(np.mean(terms), rel=1e-5)
    entropies = [-(p * np.log(p)).sum() for p in (softmax((row - centre.double().numpy()) / 0.06) for row in t[0])]
    assert output["teacher_entropy"].item() == pytest.approx(np.mean(entropies), rel=1e-4)
    expected_centre = 0.9 * centre.double().numpy() + 0.1 * np.concatenate(t).mean(axis=0)
    assert np.allclose(method.criterion.center.flatten().double().numpy(), expected_centre, atol=1e-6)


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
