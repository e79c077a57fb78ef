"""Which part of a task network is its pretrained encoder, and in which of the encoder's layers a tensor lies."""

from __future__ import annotations

import re

from torch import nn

from monai_ssl_transfer.errors import TrainingError

HEADS = ("decoder", "segmentation_head", "fc", "classification_head")
"""Children of stock MONAI networks that are new in transfer."""
ENCODERS = ("encoder.encoder", "backbone.body", "encoder")
"""Where a network keeps its encoder: in a backbone of ours (a pyramid may be beside it), in a detector's backbone
(beside the feature pyramid), or as a child of its own."""
_PROJECTED = "body."
"""Start of the encoder's names where layers of the projection head are kept beside it."""
_LAYER = re.compile(r"(?:blocks\.|layer)(\d+)\.")
_ENTRANCE = re.compile(r"(?:conv1|bn1|patch_embed|patch_embedding|pos_embed|cls_token|reg_token|norm_pre)(?:\.|$)")


def encoder_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a task network that pretraining fills, by dotted name.

    Args:
        network: whatever `networks.build_unet`, `build_dense`, `build_detector` and `build_classifier` build, or the
            stock network in their place.
    """
    modules = dict(network.named_modules())
    for name in ENCODERS:
        if name in modules:
            return {name: modules[name]}
    return {name: child for name, child in network.named_children() if name not in HEADS}


def encoder_parameter_names(network: nn.Module) -> set[str]:
    """Names of the parameters of the encoder; all others belong to the decoder or head."""
    return {name for name, _ in network.named_parameters()} & inner_names(network).keys()


def inner_names(network: nn.Module) -> dict[str, str]:
    """Names of the encoder's modules, parameters and buffers in a network, and what they are within the encoder.

    Args:
        network: as for `encoder_modules`.

    Returns:
        Such as "encoder.encoder.layer1.0.conv1.weight" to "layer1.0.conv1.weight".
    """
    parts = encoder_modules(network)
    prefix = f"{next(iter(parts))}." if parts.keys() & set(ENCODERS) else ""
    names = [name for name, _ in network.named_modules()]
    names += [name for name, _ in network.named_parameters()] + [name for name, _ in network.named_buffers()]
    # A parameter beside the children of a stock network, a ViT's class token, is the encoder's.
    return {
        name: name.removeprefix(prefix).removeprefix(_PROJECTED)
        for name in names
        if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0] not in ("", *(() if prefix else HEADS))
    }


def layer_count(network: nn.Module) -> int:
    """Number of a ViT's blocks or of a ResNet's stages.

    Raises:
        TrainingError: when the network holds neither.
    """
    return max(_layers_of(network).values())


def is_vit(network: nn.Module) -> bool:
    """Whether the encoder is a ViT, otherwise a ResNet.

    Raises:
        TrainingError: when it is neither.
    """
    return any(name.startswith("blocks.") for name in _layers_of(network))


def layer_number(inner_name: str, layers: int) -> int:
    """In which layer of the encoder something lies, counted from the entrance.

    Args:
        inner_name: its name within the encoder, of `inner_names`.
        layers: `layer_count` of the network.

    Returns:
        0 for the stem, or the patches, their positions and the class token; then the blocks (ViT) or stages (ResNet);
        layers + 1 for what follows them, such as a ViT's last norm.
    """
    if found := _LAYER.match(inner_name):
        return int(found.group(1)) + int(inner_name.startswith("blocks."))
    return 0 if _ENTRANCE.match(inner_name) else layers + 1


def layer_scales(network: nn.Module, layer_decay: float) -> dict[str, float]:
    """The multiple of the encoder's learning rate at which each of its parameters learns.

    Args:
        network: as for `encoder_modules`.
        layer_decay: each layer (a ViT's blocks, a ResNet's stages, at the entrance the stem, or patches, positions and
            class token) learns at this multiple of the next one's rate (Clark et al. 2020, ELECTRA; as in BEiT, MAE and
            DINOv2 what follows the last block is not slowed down).

    Raises:
        TrainingError: for a layer decay outside of 0 to 1, or one for an encoder without known layers.
    """
    if not 0 < layer_decay <= 1:
        raise TrainingError(
            f"layer_decay {layer_decay} must be above 0 and at most 1, where 1 treats all layers alike."
        )
    names = encoder_parameter_names(network)
    if layer_decay == 1:
        return dict.fromkeys(names, 1.0)
    layers, inner = layer_count(network), inner_names(network)
    return {name: layer_decay ** (layers + 1 - layer_number(inner[name], layers)) for name in names}


def _layers_of(network: nn.Module) -> dict[str, int]:
    found = {
        name: layer_number(name, 0)
        for name in inner_names(network).values()
        if _LAYER.match(name) and not name.endswith(".")
    }
    if not found:
        raise TrainingError(
            f"The encoder of this {type(network).__name__} has neither a ViT's blocks nor a ResNet's stages, so "
            "nothing is known about its layers: build the network with one of ours (configs/networks), or give "
            "adaptation null and layer_decay 1."
        )
    return found
