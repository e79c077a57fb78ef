"""Where a network keeps its encoder: canonical names (torchvision's, timm's) to the network's and back.

A map is chosen by the network's type, never by guessing from names. Prefixes are added and removed at the start of a
name only. Source of the tables: names and measured equalities of MONAI 1.6 and timm 1.0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import timm.models
import torchvision
from monai.networks import nets
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.backbones import REGISTERED_PREFIX, TimmResNetBackbone, TimmViTBackbone
from monai_ssl_transfer.networks.classification import LAYER_NORM_EPS, MONAI_UNUSED, EncoderClassifier, ProjectedEncoder
from monai_ssl_transfer.networks.dense import DensePredictionTransformer, LinearDense, entry_convolution
from monai_ssl_transfer.networks.encoders import SPECS
from monai_ssl_transfer.weights.completeness import BATCH_COUNTER
from monai_ssl_transfer.weights.transformer_names import (
    from_monai_mae,
    from_monai_vit,
    from_torchvision_vit,
    monai_mae_names,
    monai_vit_names,
    torchvision_vit_names,
)

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
HEADS = ("fc.", "head.", "classification_head.", "heads.")
"""Heads that share the encoder's level: torchvision and MoCo, timm, MONAI, torchvision's ViT."""
MAE_DECODER = ("decoder_", "mask_token")
"""What MONAI's masked autoencoder has on the encoder's level."""


@dataclass(frozen=True)
class KeyMap:
    """The way between canonical names and those of one network.

    Args:
        network: what the network is, for messages.
        architecture: canonical name of the encoder inside, "" if it is none of ours.
        in_channels: channels of its input.
        prefix: start of all the encoder's names in the network.
        rename: canonical tensors to the network's, without the prefix.
        restore: the inverse.
        beside: starts of the names, on the encoder's level, of what is not the encoder.
    """

    network: str
    architecture: str
    in_channels: int
    prefix: str
    rename: Callable[[Mapping[str, Tensor]], State]
    restore: Callable[[Mapping[str, Tensor]], State]
    beside: tuple[str, ...] = HEADS

    def targets(self, network: nn.Module) -> State:
        """The encoder's tensors in the network, under the network's names without the prefix, heads left out."""
        inside = {k[len(self.prefix) :]: v for k, v in network.state_dict().items() if k.startswith(self.prefix)}
        return {k: v for k, v in inside.items() if not k.startswith(self.beside) and MONAI_UNUSED not in k}

    def read(self, network: nn.Module) -> State:
        """The encoder's tensors in the network, under canonical names."""
        return self.restore(self.targets(network))


def encoder_map(network: nn.Module) -> KeyMap:
    """Find the encoder in a network.

    Args:
        network: an encoder of `build_encoder`, a network of `build_unet`, `build_dense`, `build_detector` or
            `build_classifier`, or a stock FlexibleUNet, MONAI ResNet, ViT or masked autoencoder, torchvision ResNet or
            ViT, segmentation_models_pytorch network or torchvision detector that is built alike.

    Raises:
        WeightsError: if the network cannot hold one of our encoders exactly.
    """
    if isinstance(network, timm.models.ResNet | timm.models.VisionTransformer):
        return _plain_map(network, network, "")
    if isinstance(network, nets.FlexibleUNet):
        return _flexible_unet_map(network)
    if isinstance(network, nets.ResNet):
        return _monai_resnet_map(network, network, "", "MONAI ResNet")
    if isinstance(network, nets.ViT | nets.MaskedAutoEncoderViT):
        return _monai_vit_map(network)
    if isinstance(network, torchvision.models.ResNet):
        return _torchvision_resnet_map(network, network, "")
    if isinstance(network, torchvision.models.VisionTransformer):
        architecture, in_channels = identify(from_torchvision_vit(network.state_dict()), attention_heads(network))
        label = f"torchvision VisionTransformer ({architecture})"
        return KeyMap(label, architecture, in_channels, "", torchvision_vit_names, from_torchvision_vit)
    if isinstance(network, EncoderClassifier) and isinstance(network.encoder, ProjectedEncoder):
        return _plain_map(network, network.encoder.body, "encoder.body.")
    if isinstance(network, LinearDense | EncoderClassifier):
        return _plain_map(network, network.encoder, "encoder.")
    if isinstance(network, DensePredictionTransformer):
        return _plain_map(network, network.encoder.encoder, "encoder.encoder.")
    if isinstance(network, SegmentationModel) and isinstance(network.encoder, torchvision.models.ResNet):
        return _torchvision_resnet_map(network, network.encoder, "encoder.")
    if isinstance(network, GeneralizedRCNN) and hasattr(network.backbone, "body"):
        return _detector_map(network, network.backbone.body)
    raise WeightsError(
        f"No encoder can be loaded into a {type(network).__name__}: build the network with "
        "networks.build_unet, build_dense, build_detector, build_classifier or build_encoder."
    )


def _same(state: Mapping[str, Tensor]) -> State:
    return dict(state)


def _plain_map(network: nn.Module, encoder: nn.Module, prefix: str) -> KeyMap:
    """An encoder under canonical names, alone or inside of another network."""
    architecture, in_channels = identify(encoder.state_dict(), attention_heads(encoder))
    return KeyMap(f"{type(network).__name__} ({architecture})", architecture, in_channels, prefix, _same, _same)


def _flexible_unet_map(network: nets.FlexibleUNet) -> KeyMap:
    backbone = network.encoder
    if isinstance(backbone, TimmResNetBackbone | TimmViTBackbone):
        return _plain_map(network, backbone.encoder, "encoder.encoder.")
    if isinstance(backbone, nets.ResNet):
        return _monai_resnet_map(network, backbone, "encoder.", f"FlexibleUNet ({network.backbone})")
    raise WeightsError(
        f'FlexibleUNet with backbone "{network.backbone}" holds none of our encoders: '
        f"build it with networks.build_unet (one of {', '.join(SPECS)})."
    )


def _monai_resnet_map(network: nn.Module, resnet: nets.ResNet, prefix: str, label: str) -> KeyMap:
    """MONAI's ResNet has torchvision's names; whether it computes the same depends on how it was built."""
    stem = resnet.conv1
    right_stem = tuple(stem.kernel_size) == (7, 7) and tuple(stem.stride) == (2, 2) and not resnet.no_max_pool
    state = resnet.state_dict()
    right_shortcuts = "layer2.0.downsample.0.weight" in state and "layer2.0.downsample.0.bias" not in state
    if not (right_stem and right_shortcuts):
        remedy = (
            f'build it with networks.build_unet (backbone "{REGISTERED_PREFIX}resnet18")'
            if isinstance(network, nets.FlexibleUNet)
            else 'build it with networks.build_classifier, or with spatial_dims=2, shortcut_type="B", '
            "bias_downsample=False, conv1_t_size=7, conv1_t_stride=2"
        )
        raise WeightsError(f"This {label} computes something else than torchvision's ResNet: {remedy}.")
    architecture, in_channels = identify(state)
    return KeyMap(label, architecture, in_channels, prefix, _same, _same)


def _torchvision_resnet_map(network: nn.Module, resnet: Any, prefix: str) -> KeyMap:
    """A ResNet of torchvision, also in segmentation_models_pytorch; it may be dilated, see `networks.dense`."""
    stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    for before, stage in pairwise(stages):
        if entry_convolution(stage).dilation != before[-1].conv2.dilation:
            raise WeightsError(
                f"The dilated encoder of this {type(network).__name__} computes something else than torchvision's "
                'ResNet: build it with networks.build_dense (decoder "deeplabv3plus").'
            )
    return _plain_map(network, resnet, prefix)


def _detector_map(network: nn.Module, body: nn.Module) -> KeyMap:
    """torchvision's detectors keep the encoder as `backbone.body`; frozen batch norm counts no batches."""
    found = _plain_map(network, body, "backbone.body.")
    if any(name.endswith(BATCH_COUNTER) for name in body.state_dict()) or "conv1.weight" not in body.state_dict():
        return found
    return replace(found, rename=_without_counters)


def _without_counters(state: Mapping[str, Tensor]) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(BATCH_COUNTER)}


def _monai_vit_map(network: Any) -> KeyMap:
    """MONAI's ViT or masked autoencoder, see `weights.transformer_names`."""
    if not hasattr(network, "cls_token") or "patch_embedding.patch_embeddings.weight" not in network.state_dict():
        raise WeightsError(
            "This MONAI ViT has no class token, which the encoder's attention needs: "
            "build it with networks.build_classifier (classification=True, proj_type='conv')."
        )
    mae = isinstance(network, nets.MaskedAutoEncoderViT)
    eps = (network.blocks[-1] if mae else network.norm).eps
    if eps != LAYER_NORM_EPS:
        logger.warning(
            "This MONAI ViT has LayerNorm eps %g, the encoder was made with %g: outputs differ by about 1e-5; "
            "networks.build_classifier builds the same network without the difference.",
            eps,
            LAYER_NORM_EPS,
        )
    rename, restore = (monai_mae_names, from_monai_mae) if mae else (monai_vit_names, from_monai_vit)
    architecture, in_channels = identify(restore(network.state_dict()), attention_heads(network))
    label = "MONAI masked autoencoder" if mae else "MONAI ViT"
    return KeyMap(label, architecture, in_channels, "", rename, restore, (*HEADS, *MAE_DECODER))


def attention_heads(network: nn.Module) -> int:
    """Attention heads per block of a ViT of timm, MONAI or torchvision, which no tensor shows; 0 of other networks."""
    modules = (module for name, module in network.named_modules() if name.endswith((".attn", ".self_attention")))
    return int(getattr(next(modules, None), "num_heads", 0))


def identify(state: Mapping[str, Tensor], heads: int = 0) -> tuple[str, int]:
    """Recognise an encoder by its canonical tensors.

    Args:
        state: canonical names to tensors; heads for classes are ignored.
        heads: attention heads of the ViT, 0 if only its tensors are known; the usual number is then assumed.

    Returns:
        The architecture ("" if it is none of ours) and the channels of the input (0 if there is no stem).
    """
    stem = state.get("conv1.weight", state.get("patch_embed.proj.weight"))
    if stem is None or stem.ndim != 4:
        return "", 0
    depths = tuple(_blocks(state, f"layer{stage}.") for stage in (1, 2, 3, 4))
    if "conv1.weight" in state:
        bottleneck = "layer1.0.conv3.weight" in state
        right = tuple(stem.shape[::2]) == (64, 7)
        known: dict[tuple[tuple[int, ...], bool], str] = {
            ((2, 2, 2, 2), False): "resnet18",
            ((3, 4, 6, 3), True): "resnet50",
        }
        return (known.get((depths, bottleneck), "") if right else ""), stem.shape[1]
    blocks = _blocks(state, "blocks.")
    registers = state.get("reg_token")
    extras = (0 if registers is None else registers.shape[1], "blocks.0.ls1.gamma" in state)
    for name, spec in SPECS.items():
        if (
            spec.family == "vit"
            and heads in (0, spec.heads)
            and (stem.shape[0], stem.shape[2], blocks, *extras)
            == (
                spec.width,
                spec.patch_size,
                spec.depth,
                spec.registers,
                spec.layer_scale,
            )
        ):
            return name, stem.shape[1]
    return "", stem.shape[1]


def _blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks whose names start with `<prefix><number>.`, by the highest number."""
    numbers = (name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
