"""Parameter-efficient transfer: what of a pretrained encoder learns, and by which small tensors."""

from __future__ import annotations

import logging
from typing import Protocol

from torch import nn

from monai_ssl_transfer.networks.adapters_frozen import AppliedAdaptation, applied_adaptation
from monai_ssl_transfer.networks.adapters_lora import LoRA, merged_state
from monai_ssl_transfer.networks.adapters_partial import BitFit, LastBlocks, NormOnly
from monai_ssl_transfer.networks.encoders import is_loaded

__all__ = [
    "ADAPTATIONS",
    "Adaptation",
    "AppliedAdaptation",
    "BitFit",
    "LastBlocks",
    "LoRA",
    "NormOnly",
    "adapt",
    "applied_adaptation",
    "merged_state",
]

logger = logging.getLogger(__name__)


class Adaptation(Protocol):
    """A way to adapt an encoder by few parameters; overlays in configs/protocols name one."""

    def apply(self, network: nn.Module) -> None:
        """Change a task network in place, after its encoder is loaded and before an optimizer is made."""


ADAPTATIONS: dict[str, type] = {one.__name__: one for one in (LoRA, BitFit, NormOnly, LastBlocks)}
"""Those that a file of an adapter can name."""


def adapt(network: nn.Module, adaptation: Adaptation | None) -> nn.Module:
    """Adapt a task network as its protocol says.

    Args:
        network: task network with its pretrained encoder, changed in place.
        adaptation: None leaves everything trainable.

    Returns:
        The network.
    """
    if adaptation is None:
        return network
    if not is_loaded(network):
        logger.warning(
            "the encoder that is adapted has random weights, most of which never learn: give --encoder_weights"
        )
    adaptation.apply(network)
    trained, everything = trained_parameters(network)
    logger.info("%d of %d parameters learn (%.2f %%)", trained, everything, 100 * trained / everything)
    return network


def trained_parameters(network: nn.Module) -> tuple[int, int]:
    """How many parameters learn, and how many there are, head or decoder included."""
    sizes = [(one.numel(), one.requires_grad) for one in network.parameters()]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)
