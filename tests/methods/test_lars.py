"""lightly's LARS on our parameter groups: adaptation and decay for weights, neither for biases and norms."""

from __future__ import annotations

import pytest
import torch
from lightly.utils.lars import LARS
from torch import nn

from monai_ssl_transfer.methods import parameter_groups


def layer() -> nn.Linear:
    network = nn.Linear(2, 1)
    network.weight.data[:] = torch.tensor([[3.0, 4.0]])
    network.bias.data[:] = 1.0
    network.weight.grad = torch.tensor([[0.6, 0.8]])
    network.bias.grad = torch.tensor([0.5])
    return network


def test_a_step_by_hand() -> None:
    network = layer()
    LARS(parameter_groups(network, 0.1), lr=2.0, momentum=0.9).step()
    # |w| = 5, |g| = 1: trust 0.001 * 5 / (1 + 0.1 * 5) = 1 / 300; (g + 0.1 w) / 300 = (0.003, 0.004); times 2
    assert network.weight.data.flatten().tolist() == pytest.approx([3 - 0.006, 4 - 0.008], abs=1e-6)
    assert network.bias.item() == pytest.approx(1 - 2 * 0.5)  # the plain gradient, no decay


def test_two_steps_have_momentum() -> None:
    network = layer()
    optimizer = LARS(parameter_groups(network, 0.1), lr=2.0, momentum=0.9)
    optimizer.step()
    optimizer.step()
    assert network.bias.item() == pytest.approx(1 - 2 * 0.5 - 2 * (0.9 * 0.5 + 0.5))


@pytest.mark.parametrize("decay", [1e-6, 1e-4])
def test_the_decays_of_the_overlays_switch_the_adaptation_on(decay: float) -> None:
    network = layer()
    LARS(parameter_groups(network, decay), lr=1.0).step()
    moved = torch.tensor([3.0, 4.0]) - network.weight.data.flatten()
    assert moved.norm().item() == pytest.approx(0.005, rel=1e-3)  # trust coefficient x |w|, whatever the gradient
    assert network.bias.item() == pytest.approx(0.5)
