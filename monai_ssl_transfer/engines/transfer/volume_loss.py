"""The loss of a slice network: Dice and cross-entropy, of exclusive classes or of overlapping regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import nn

from monai_ssl_transfer.data.volumes.labels import output_weights


def volume_loss(
    outputs: int,
    overlapping: bool = False,
    weights: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Dice + cross-entropy over logits (B, outputs, H, W); Dice is of the whole batch.

    For overlapping regions the cross-entropy is binary: `DiceFocalLoss` without focusing (gamma 0), because
    `DiceCELoss` takes the softmax cross-entropy of several outputs whatever its activation.

    Args:
        outputs: of the network.
        overlapping: targets are (B, outputs, H, W) masks (sigmoid); else (B, 1, H, W) classes (softmax), and the
            Dice leaves out the background.
        weights: of the outputs; None for ones.
        device: of the weights.

    Raises:
        DataError: another number of weights.
    """
    found = output_weights(weights, outputs).to(device)
    if overlapping:
        return DiceFocalLoss(sigmoid=True, batch=True, gamma=0.0, weight=found)
    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=found)
