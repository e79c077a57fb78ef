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
import torch
import torchvision
from monai.networks import nets
from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.backbones import REGISTERED_PREFIX, TimmResNetBackbone, TimmViTBackbone
from monai_ssl_transfer.networks.classification import LAYER_NORM_EPS, EncoderClassifier, ProjectedEncoder
from monai_ssl_transfer.networks.dense import DensePredictionTransformer, LinearDense, entry_convolution
from monai_ssl_transfer.networks.encoders import SPECS

logger = logging.getLogger(__name__)

State = dict[str, Tensor]
HEADS = ("fc.", "head.", "classification_head.")
"""Heads that share the encoder's level: torchvision and MoCo, timm, MONAI."""
BATCH_COUNTER = ".num_batches_tracked"
MONAI_VIT_UNUSED = ".norm_cross_attn."
MONAI_VIT_NAMES = (
    ("patch_embed.proj.", "patch_embedding.patch_embeddings."),
    ("attn.proj.", "attn.out_proj."),
    ("mlp.fc1.", "mlp.linear1."),
    ("mlp.fc2.", "mlp.linear2."),
)


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
    """

    network: str
    architecture: str
    in_channels: int
    prefix: str
    rename: Callable[[Mapping[str, Tensor]], State]
    restore: Callable[[Mapping[str, Tensor]], State]

    def targets(self, network: nn.Module) -> State:
        """The encoder's tensors in the network, under the network's names without the prefix, heads left out."""
        inside = {k[len(self.prefix) :]: v for k, v in network.state_dict().items() if k.startswith(self.prefix)}
        return {k: v for k, v in inside.items() if not k.startswith(HEADS) and MONAI_VIT_UNUSED not in k}

    def read(self, network: nn.Module) -> State:
        """The encoder's tensors in the network, under canonical names."""
        return self.restore(self.targets(network))


def encoder_map(network: nn.Module) -> KeyMap:
    """Find the encoder in a network.

    Args:
        network: an encoder of `build_encoder`, a network of `build_unet`, `build_dense`, `build_detector` or
            `build_classifier`, or a stock FlexibleUNet, MONAI ResNet or ViT, segmentation_models_pytorch network or
            torchvision detector that is built alike.

    Raises:
        WeightsError: if the network cannot hold one of our encoders exactly.
    """
    if isinstance(network, timm.models.ResNet | timm.models.VisionTransformer):
        return _plain_map(network, network, "")
    if isinstance(network, nets.FlexibleUNet):
        return _flexible_unet_map(network)
    if isinstance(network, nets.ResNet):
        return _monai_resnet_map(network, network, "", "MONAI ResNet")
    if isinstance(network, nets.ViT):
        return _monai_vit_map(network)
    if isinstance(network, EncoderClassifier) and isinstance(network.encoder, ProjectedEncoder):
        return _plain_map(network, network.encoder.body, "encoder.body.")
    if isinstance(network, LinearDense | EncoderClassifier):
        return _plain_map(network, network.encoder, "encoder.")
    if isinstance(network, DensePredictionTransformer):
        return _plain_map(network, network.encoder.encoder, "encoder.encoder.")
    if isinstance(network, SegmentationModel) and isinstance(network.encoder, torchvision.models.ResNet):
        return _smp_resnet_map(network, network.encoder)
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
    state = encoder.state_dict()
    architecture, in_channels = identify(state)
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


def _smp_resnet_map(network: nn.Module, resnet: Any) -> KeyMap:
    """A ResNet of segmentation_models_pytorch, which may be dilated; see `networks.dense`."""
    stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    for before, stage in pairwise(stages):
        if entry_convolution(stage).dilation != before[-1].conv2.dilation:
            raise WeightsError(
                f"The dilated encoder of this {type(network).__name__} computes something else than torchvision's "
                'ResNet: build it with networks.build_dense (decoder "deeplabv3plus").'
            )
    return _plain_map(network, resnet, "encoder.")


def _detector_map(network: nn.Module, body: nn.Module) -> KeyMap:
    """torchvision's detectors keep the encoder as `backbone.body`; frozen batch norm counts no batches."""
    found = _plain_map(network, body, "backbone.body.")
    if any(name.endswith(BATCH_COUNTER) for name in body.state_dict()) or "conv1.weight" not in body.state_dict():
        return found
    return replace(found, rename=_without_counters)


def _without_counters(state: Mapping[str, Tensor]) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(BATCH_COUNTER)}


def _monai_vit_map(network: nets.ViT) -> KeyMap:
    """MONAI's ViT: other names, and no place for the class token's position, which is added to the token itself."""
    if not hasattr(network, "cls_token") or not hasattr(network.patch_embedding, "patch_embeddings"):
        raise WeightsError(
            "This MONAI ViT has no class token, which the encoder's attention needs: "
            "build it with networks.build_classifier (classification=True, proj_type='conv')."
        )
    if network.norm.eps != LAYER_NORM_EPS:
        logger.warning(
            "This MONAI ViT has LayerNorm eps %g, the encoder was made with %g: outputs differ by about 1e-5; "
            "networks.build_classifier builds the same network without the difference.",
            network.norm.eps,
            LAYER_NORM_EPS,
        )
    architecture, in_channels = identify(_vit_to_canonical(network.state_dict()))
    return KeyMap("MONAI ViT", architecture, in_channels, "", _vit_from_canonical, _vit_to_canonical)


def _vit_from_canonical(state: Mapping[str, Tensor]) -> State:
    renamed = {_rename_part(name, MONAI_VIT_NAMES): tensor for name, tensor in state.items()}
    if "pos_embed" in renamed and "cls_token" in renamed:
        position = renamed.pop("pos_embed")
        renamed["cls_token"] = renamed["cls_token"] + position[:, :1]
        renamed["patch_embedding.position_embeddings"] = position[:, 1:].clone()
    return renamed


def _vit_to_canonical(state: Mapping[str, Tensor]) -> State:
    """The class token keeps its position inside of it, so that the restored position of the class token is zero."""
    back = tuple((new, old) for old, new in MONAI_VIT_NAMES)
    renamed = {_rename_part(name, back): tensor for name, tensor in state.items()}
    position = renamed.pop("patch_embedding.position_embeddings", None)
    if position is not None and "cls_token" in renamed:
        renamed["pos_embed"] = torch.cat([torch.zeros_like(renamed["cls_token"]), position], dim=1)
    return renamed


def _rename_part(name: str, names: tuple[tuple[str, str], ...]) -> str:
    """Rename what follows `blocks.<number>.` or, outside of the blocks, the start of a name."""
    parts = name.split(".", 2)
    block = ".".join(parts[:2]) + "." if parts[0] == "blocks" and len(parts) == 3 else ""
    rest = name[len(block) :]
    for old, new in names:
        if rest.startswith(old):
            return block + new + rest[len(old) :]
    return name


def identify(state: Mapping[str, Tensor]) -> tuple[str, int]:
    """Recognise an encoder by its canonical tensors.

    Args:
        state: canonical names to tensors; heads are ignored.

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
        if spec.family == "vit" and (stem.shape[0], stem.shape[2], blocks, *extras) == (
            spec.width,
            spec.patch_size,
            spec.depth,
            spec.registers,
            spec.layer_scale,
        ):
            return name, stem.shape[1]
    return "", stem.shape[1]


def _blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of blocks whose names start with `<prefix><number>.`, by the highest number."""
    numbers = (name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
