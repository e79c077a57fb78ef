"""What the optimizer of a pretraining gets: parameters in groups, each with its weight decay and share of the rate."""

from __future__ import annotations

from typing import Any

from torch import nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks.parts import layer_scales

_ENCODER = "encoder."
_PATCHES = f"{_ENCODER}patch_embed."


def parameter_groups(
    method: nn.Module,
    weight_decay: float,
    bias_factor: float = 1.0,
    layer_decay: float = 1.0,
    patch_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameters for the optimizer: with weight decay, and without (biases, norms: all that is 1-D).

    Frozen parameters (momentum encoders, the fixed gain of DINO's last layer) are left out. lightly's LARS adapts the
    rate only in groups with weight decay, so biases and norms are excluded from it, as the papers want.

    Args:
        method: the method; what is not in its `encoder` (heads, decoder, mask token) learns at the whole rate.
        weight_decay: weight decay of the first group.
        bias_factor: what the learning rate of biases and norms is multiplied by (Barlow Twins: 0.0048 / 0.2).
        layer_decay: each layer of the encoder learns at this multiple of the next one's rate, as in transfer; 1 treats
            all alike. DINOv2's code has 1 in its long recipe and 0.9 in the short one.
        patch_factor: what the learning rate of a ViT's patch projection is multiplied by besides (DINOv2: 0.2).

    Returns:
        Dictionaries with "params", "weight_decay" and "lr_factor"; a decay that is 0 must stay 0 in a schedule. The
        first two have the whole rate, with and without weight decay; two more follow for each slower part of the
        encoder.

    Raises:
        TrainingError: for a layer decay outside of 0 to 1 or of an encoder without known layers, or a patch factor
            that is not positive or finds no patch projection that learns.
    """
    trained = {name: parameter for name, parameter in method.named_parameters() if parameter.requires_grad}
    scales = _scales(method, list(trained), layer_decay, patch_factor)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in trained.items():
        groups.setdefault((scales.get(name, 1.0), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            "lr_factor": scale if decays else scale * bias_factor,
        }
        for (scale, decays), parameters in groups.items()
    ]


def _scales(method: nn.Module, trained: list[str], layer_decay: float, patch_factor: float) -> dict[str, float]:
    """The multiple of the whole rate at which parameters of the encoder learn, where it is another than 1."""
    scales: dict[str, float] = {}
    if layer_decay != 1:
        found = layer_scales(method.get_submodule(_ENCODER[:-1]), layer_decay)
        scales = {f"{_ENCODER}{name}": scale for name, scale in found.items()}
    if patch_factor != 1:
        patches = [name for name in trained if name.startswith(_PATCHES)]
        if patch_factor <= 0 or not patches:
            raise TrainingError(
                f"patch_learning_rate_factor {patch_factor:g} must be above 0 and needs a ViT whose patch projection "
                f"learns, which {type(method).__name__} does not have here: leave it at 1."
            )
        scales |= {name: scales.get(name, 1.0) * patch_factor for name in patches}
    return scales
