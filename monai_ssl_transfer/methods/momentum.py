"""Momentum encoders: copies that follow the trained network slowly."""

from __future__ import annotations

import copy
import math

from lightly.models.utils import update_momentum
from timm.layers import DropPath
from torch import nn


def momentum_copy(network: nn.Module) -> nn.Module:
    """Copy a network for following it: the same values, no gradients, no stochastic depth."""
    follower = copy.deepcopy(network).requires_grad_(False)
    for module in follower.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return follower


def follow(network: nn.Module, follower: nn.Module, momentum: float) -> None:
    """Move the follower's parameters: `momentum * follower + (1 - momentum) * network`.

    Buffers are left alone on purpose. The only ones in our networks are batch-norm statistics, and those of the
    follower must describe the activations of the follower's own weights: like the reference code of MoCo and DINO, it
    runs in training mode and so keeps its own running statistics. They are part of the state dict.

    Args:
        network: the trained network.
        follower: made by `momentum_copy`.
        momentum: 0 copies, 1 stands still.
    """
    update_momentum(network, follower, momentum)


def cosine_to_one(start: float, progress: float) -> float:
    """Momentum that rises from `start` to 1 along half a cosine (Grill et al. 2020, arXiv 2006.07733, section 3.2).

    Args:
        start: value at progress 0.
        progress: position in the training, 0 to 1.
    """
    return 1.0 - (1.0 - start) * (math.cos(math.pi * progress) + 1.0) / 2.0
