"""Adaptations by a part of the encoder's own tensors: its biases, its norms, or its last layers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from torch import nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks.adapters_frozen import freeze_encoder, trained_encoder_parameters
from monai_ssl_transfer.networks.parts import encoder_modules, is_vit, layer_count, layer_number

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BitFit:
    """All biases of the encoder learn, those of its norms included (Ben Zaken et al. 2022, arXiv 2106.10199)."""

    def apply(self, network: nn.Module) -> None:
        """Freeze the encoder but for its biases.

        Raises:
            TrainingError: when it has none.
        """
        freeze_encoder(network, self, lambda name, _: name.endswith(".bias"))
        _require_something(network, "BitFit", "bias")


@dataclass(frozen=True)
class NormOnly:
    """Weights and biases of the encoder's norms learn; the running statistics of batch norm stay."""

    def apply(self, network: nn.Module) -> None:
        """Freeze the encoder but for its norms.

        Raises:
            TrainingError: when it has none that could learn.
        """
        norms = {
            id(parameter)
            for encoder in encoder_modules(network).values()
            for module in encoder.modules()
            if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm)
            for parameter in module.parameters()
        }
        freeze_encoder(network, self, lambda _, parameter: id(parameter) in norms)
        _require_something(network, "NormOnly", "norm that can learn")


@dataclass(frozen=True)
class LastBlocks:
    """The last layers of the encoder learn, and what follows them, such as a ViT's last norm.

    Args:
        blocks: how many of a ViT's blocks.
        stages: how many of a ResNet's four stages, with their batch-norm statistics; 1 is `layer4`.
    """

    blocks: int = 4
    stages: int = 1

    def apply(self, network: nn.Module) -> None:
        """Freeze the encoder but for its last layers.

        Raises:
            TrainingError: when it has fewer than are asked for.
        """
        layers = layer_count(network)
        count, what = (self.blocks, "blocks") if is_vit(network) else (self.stages, "stages")
        if type(count) is not int or not 1 <= count <= layers:
            raise TrainingError(
                f"The last {count!r} {what} cannot learn in an encoder of {layers}: give 1 to {layers} last_{what}."
            )

        def late(name: str) -> bool:
            return layer_number(name, layers) > layers - count

        freeze_encoder(network, self, lambda name, _: late(name), statistics_learn=late)
        logger.info("the last %d of %d %s of the encoder learn", count, layers, what)


def _require_something(network: nn.Module, name: str, missing: str) -> None:
    learning = trained_encoder_parameters(network)
    if not learning:
        raise TrainingError(
            f"{name} finds no {missing} in the encoder of this {type(network).__name__} (frozen batch norm has none): "
            "choose another of configs/protocols, such as lora, or build the network without frozen_batch_norm."
        )
    logger.info("%s: %d tensors of the encoder learn", name, len(learning))
