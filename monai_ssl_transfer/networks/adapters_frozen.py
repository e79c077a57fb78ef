"""Freezing all of an encoder but what an adaptation lets learn, for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks.classification import MONAI_UNUSED
from monai_ssl_transfer.networks.parts import encoder_parameter_names, inner_names


@dataclass(frozen=True)
class AppliedAdaptation:
    """What an adaptation did to a network; kept on the network.

    Args:
        name: of the adaptation's class.
        settings: its arguments.
        frozen: names of the parameters and buffers in the network that never change.
        frozen_statistics: names of the modules whose running statistics are used and kept.
    """

    name: str
    settings: dict[str, Any]
    frozen: frozenset[str]
    frozen_statistics: tuple[str, ...]


def applied_adaptation(network: nn.Module) -> AppliedAdaptation | None:
    """What an adaptation did to a network, None if there was none."""
    return getattr(network, "applied_adaptation", None)


def freeze_encoder(
    network: Any,
    adaptation: Any,
    learns: Callable[[str, nn.Parameter], bool],
    statistics_learn: Callable[[str], bool] = lambda name: False,
) -> None:
    """Freeze an encoder except for what learns, and note on the network what was done.

    Frozen batch norm stays in evaluation mode, also when a trainer calls `network.train()` in every iteration. What
    needed no gradient before needs none afterwards.

    Args:
        network: as for `parts.encoder_modules`, changed in place.
        adaptation: a dataclass, the one that asks.
        learns: whether a parameter learns, by its name within the encoder.
        statistics_learn: whether a module's running statistics go on changing, by its name within the encoder.

    Raises:
        TrainingError: when the network is adapted already.
    """
    if (earlier := applied_adaptation(network)) is not None:
        raise TrainingError(
            f"This network is adapted by {earlier.name} already: build a fresh one for another adaptation."
        )
    inner, names = inner_names(network), encoder_parameter_names(network)
    encoder = {key: one for key, one in network.named_parameters() if key in names}
    for key, parameter in encoder.items():
        parameter.requires_grad_(parameter.requires_grad and MONAI_UNUSED not in key and learns(inner[key], parameter))
    frozen = {key for key, parameter in encoder.items() if not parameter.requires_grad}
    counting = {key for key, module in network.named_modules() if key in inner and _has_statistics(module)}
    still = tuple(sorted(key for key in counting if not statistics_learn(inner[key])))
    moving = counting - set(still)
    frozen |= {key for key, _ in network.named_buffers() if key in inner and key.rpartition(".")[0] not in moving}
    network.applied_adaptation = AppliedAdaptation(
        type(adaptation).__name__, dict(vars(adaptation)), frozenset(frozen), still
    )
    network.register_forward_pre_hook(_statistics_stand_still)


def trained_encoder_parameters(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of the encoder that learn, by their names in the network."""
    names = encoder_parameter_names(network)
    return {name: one for name, one in network.named_parameters() if name in names and one.requires_grad}


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_mean", None), Tensor)


def _statistics_stand_still(network: Any, _: Any) -> None:
    """By name: a copy of the network must not reach into the one that it was copied from."""
    for name in network.applied_adaptation.frozen_statistics:
        network.get_submodule(name).eval()
