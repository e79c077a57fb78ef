"""Parameter-efficient transfer: what of a pretrained encoder learns, and by which small tensors."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class Adaptation(Protocol):
    """A way to adapt an encoder by few parameters; overlays in configs/protocols name one."""

    def apply(self, network: nn.Module) -> None:
        """Change a task network in place, after its encoder is loaded and before an optimizer is made."""


def adapt(network: nn.Module, adaptation: Adaptation | None) -> nn.Module:
    """Adapt a task network as its protocol says.

    Args:
        network: task network with its pretrained encoder, changed in place.
        adaptation: None leaves everything trainable.

    Returns:
        The network.
    """
    if adaptation is not None:
        adaptation.apply(network)
    return network
