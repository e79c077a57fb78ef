"""LoRA: a frozen layer plus a product of two small matrices that learns (Hu et al. 2022, arXiv 2106.09685)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks.adapters_frozen import freeze_encoder
from monai_ssl_transfer.networks.parts import inner_names, is_vit

logger = logging.getLogger(__name__)

CHILD = "lora"
VIT_TARGETS = {
    "qkv": r"blocks\.\d+\.attn\.qkv",
    "proj": r"blocks\.\d+\.attn\.(proj|out_proj)",
    "fc1": r"blocks\.\d+\.mlp\.(fc1|linear1)",
    "fc2": r"blocks\.\d+\.mlp\.(fc2|linear2)",
}
"""timm's names of the layers in a ViT's blocks, to those and MONAI's."""
RESNET_TARGETS = {"conv": r"layer\d\..*"} | {f"layer{stage}": rf"layer{stage}\..*" for stage in (1, 2, 3, 4)}
"""All convolutions of a ResNet's stages, shortcuts included, or those of one stage."""


class LowRank(nn.Module):
    """What LoRA adds to a layer: `scale * B A x`, nothing at first because B is 0.

    Args:
        layer: the layer; of a convolution A has the kernel and B is a 1x1 convolution.
        rank: columns of B and rows of A.
        scale: alpha / rank.
        dropout: share of the layer's input that this branch does not see in training.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, scale: float, dropout: float):
        super().__init__()
        weight = layer.weight
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], rank, *[1] * (weight.ndim - 2)))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as PyTorch draws a layer, and LoRA's authors draw A
        self.convolution: tuple[Any, ...] = ()
        if isinstance(layer, nn.Conv2d):
            self.convolution = (layer.stride, layer.padding, layer.dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Map the layer's input to what is added to its output."""
        x = self.dropout(x)
        if self.convolution:
            return self.scale * F.conv2d(F.conv2d(x, self.A, None, *self.convolution), self.B)
        return self.scale * F.linear(F.linear(x, self.A), self.B)


@dataclass(frozen=True)
class LoRA:
    """Adapt an encoder by low-rank additions to its layers; all of its own tensors stay as they are.

    The layers and the names of their tensors stay too: the addition is a child `lora` of the layer and is added by a
    hook, so that networks are still recognised, and are plain again once it is merged (`merged_state`).

    Args:
        rank: of the additions.
        alpha: they are multiplied by alpha / rank.
        targets: which layers; of a ViT's blocks "qkv", "proj", "fc1" and "fc2", of a ResNet "conv" (all of its
            stages) or "layer1" to "layer4". Those of the other family are passed over.
        dropout: share of a layer's input that the addition does not see in training.
        biases: whether the biases of those layers learn too (peft's "lora_only").
    """

    rank: int = 8
    alpha: float = 16.0
    targets: Sequence[str] = ("qkv", "fc1", "fc2", "conv")
    dropout: float = 0.0
    biases: bool = False

    def apply(self, network: nn.Module) -> None:
        """Add the low-rank branches and freeze the rest of the encoder.

        Raises:
            TrainingError: for a rank that is no whole number from 1, an alpha or dropout that is no number, or targets
                that match nothing.
        """
        self._check()
        inner = inner_names(network)
        chosen = self._layers(network, inner)
        biases = {f"{inner[name]}.bias" for name in chosen} if self.biases else set()
        freeze_encoder(network, self, lambda name, _: name in biases)
        for layer in chosen.values():
            setattr(layer, CHILD, LowRank(layer, self.rank, self.alpha / self.rank, self.dropout))
            layer.register_forward_hook(_add_low_rank)
        logger.info("LoRA of rank %d in %d layers of the encoder", self.rank, len(chosen))

    def _check(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise TrainingError(f"LoRA's rank {self.rank!r} must be a whole number from 1: change lora_rank.")
        if not _is_number(self.alpha):
            raise TrainingError(f"LoRA's alpha {self.alpha!r} must be a number: change lora_alpha.")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise TrainingError(
                f"LoRA's dropout {self.dropout!r} must be a number from 0 to below 1: change lora_dropout."
            )
        if isinstance(self.targets, str):
            raise TrainingError(f"LoRA's targets {self.targets!r} must be a list: change lora_targets.")

    def _layers(self, network: nn.Module, inner: dict[str, str]) -> dict[str, Any]:
        """The layers that are adapted, by their names in the network."""
        own, other = (VIT_TARGETS, RESNET_TARGETS) if is_vit(network) else (RESNET_TARGETS, VIT_TARGETS)
        layers = {
            name: module
            for name, module in network.named_modules()
            if name in inner and isinstance(module, nn.Linear | nn.Conv2d)
        }
        found = {
            target: {name: layer for name, layer in layers.items() if re.fullmatch(own[target], inner[name])}
            for target in self.targets
            if target in own
        }
        unknown = [target for target in self.targets if not found.get(target) and target not in other]
        if unknown or not found:
            raise TrainingError(
                f"LoRA's targets {', '.join(unknown or self.targets)} match no layer in the encoder of this "
                f"{type(network).__name__}: choose from {', '.join(own)}."
            )
        return {name: layer for target in found.values() for name, layer in target.items()}


def low_ranks(network: nn.Module) -> dict[str, LowRank]:
    """The additions in a network, by the names of their layers."""
    return {name.rpartition(".")[0]: module for name, module in network.named_modules() if isinstance(module, LowRank)}


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of the plain network that computes the same as an adapted one.

    Args:
        network: adapted or not; unchanged.

    Returns:
        Copies on the CPU under the names of the plain network. The sum of weight and addition is rounded once.
    """
    additions = low_ranks(network)
    state = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for layer, addition in additions.items():
            weight = state[f"{layer}.weight"]
            # on the CPU whatever the network is on: the same adapter gives the same bits everywhere
            a, b = (state.pop(f"{layer}.{CHILD}.{name}").double() for name in "AB")
            difference = addition.scale * (b.flatten(1) @ a.flatten(1)).reshape(weight.shape)
            state[f"{layer}.weight"] = (weight.double() + difference).to(weight.dtype)
    return state


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _add_low_rank(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.lora(inputs[0])
