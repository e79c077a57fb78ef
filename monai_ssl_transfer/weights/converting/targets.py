"""What an encoder is converted for: a network, its names, and the code that loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.converting.reshape import PATCHES, REGISTERS, stem_of

State = dict[str, Tensor]
Names = Callable[[Mapping[str, Tensor]], State]


@dataclass(frozen=True)
class ReshapedEncoder:
    """What a target has to know about an encoder after all changes of shape.

    Args:
        state: canonical.
        architecture: one of `networks.encoder_names()`, "" if it is none of ours any more (3-D, other patches).
        origin: the architecture it was made from.
        image_size: side in pixels of the position embedding.
        pooling: "token" or "mean".
        spatial_dims: 2 or 3.
    """

    state: State
    architecture: str
    origin: str
    image_size: int
    pooling: str
    spatial_dims: int

    @property
    def is_vit(self) -> bool:
        """Whether it is a ViT, not a ResNet."""
        return PATCHES in self.state

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.state[stem_of(self.state)].shape[1]

    @property
    def patch_size(self) -> int:
        """Side of a ViT's patches in pixels."""
        return self.state[PATCHES].shape[-1]


@dataclass(frozen=True)
class ConversionTarget:
    """A network that takes an encoder.

    Args:
        part: the module that holds the encoder and nothing else.
        prefix: start of its tensors' names in the file, the path of the part in the network.
        names: canonical tensors to the part's.
        code: lines that build `network` and import what they need.
    """

    part: nn.Module
    prefix: str
    names: Names
    code: tuple[str, ...]


def loading_code(target: ConversionTarget, file: str) -> str:
    """Python that builds the network and loads a file strictly.

    Args:
        target: of the encoder in the file.
        file: its name.
    """
    read = f'load_file("{file}")'
    if target.prefix:
        read = f'{{name.removeprefix("{target.prefix}"): tensor for name, tensor in {read}.items()}}'
    part = "network" + ("." + target.prefix if target.prefix else ".")
    return "\n".join(
        ["from safetensors.torch import load_file", *target.code, f"{part}load_state_dict({read})", "network.eval()"]
    )


def output_comment(encoder: ReshapedEncoder) -> str:
    """What a network that gives the class token gives, as a comment."""
    trained = "; the encoder was pretrained for the mean of its patch tokens" if encoder.pooling == "mean" else ""
    return f"the class token{trained}"


def refuse_registers(network: str, encoder: ReshapedEncoder) -> None:
    """Refuse registers where a network has none.

    Raises:
        WeightsError: if the encoder has any.
    """
    if REGISTERS in encoder.state:
        raise WeightsError(
            f"{network} has no place for the {encoder.state[REGISTERS].shape[1]} registers of {encoder.origin}: "
            "convert to timm, or take the DINOv2 without registers."
        )


def written(arguments: Mapping[str, Any]) -> str:
    """Arguments as they are written in Python."""
    quoted = {name: f'"{value}"' if isinstance(value, str) else value for name, value in arguments.items()}
    return ", ".join(f"{name}={value}" for name, value in quoted.items())
