"""Encoders for networks of timm and torchvision."""

from __future__ import annotations

from typing import Any

import timm
import torchvision
from torch import nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import POOLINGS, encoder_spec
from monai_ssl_transfer.weights.converting.changes import GAIN
from monai_ssl_transfer.weights.converting.reshape import REGISTERS
from monai_ssl_transfer.weights.converting.targets import (
    ConversionTarget,
    ReshapedEncoder,
    output_comment,
    refuse_registers,
    written,
)
from monai_ssl_transfer.weights.transformer_names import torchvision_vit_names

TIMM_HEAD_WIDTH = 64
"""Width of an attention head of timm's ViTs."""


def for_timm(encoder: ReshapedEncoder) -> ConversionTarget:
    if not encoder.architecture:
        raise _none_of_ours("timm", encoder)
    spec = encoder_spec(encoder.architecture)
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": encoder.in_channels}
    if encoder.is_vit:
        arguments["img_size"] = encoder.image_size
    if encoder.is_vit and encoder.pooling == "mean":
        arguments |= {"global_pool": POOLINGS["mean"], "fc_norm": False}
    if encoder.is_vit and spec.width != TIMM_HEAD_WIDTH * spec.heads:
        arguments["num_heads"] = spec.heads
    name = spec.timm_name
    code = ("import timm", f'network = timm.create_model("{name}", {written(arguments)})')
    return ConversionTarget(timm.create_model(name, pretrained=False, **arguments), "", dict, code)


def for_torchvision(encoder: ReshapedEncoder) -> ConversionTarget:
    refuse_registers("torchvision's ViT", encoder)
    if not encoder.architecture:
        raise _none_of_ours("torchvision", encoder)
    channels = encoder.in_channels
    code = ["import torch, torchvision"]
    network: Any
    if not encoder.is_vit:
        network = torchvision.models.get_model(encoder.architecture, weights=None)
        network.fc = nn.Identity()
        code += [f"network = torchvision.models.{encoder.architecture}()", "network.fc = torch.nn.Identity()"]
        if channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
            code.append(f"network.conv1 = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)")
        return ConversionTarget(network, "", dict, tuple(code))
    spec = encoder_spec(encoder.architecture)
    arguments = {"image_size": encoder.image_size, "patch_size": encoder.patch_size, "num_layers": spec.depth}
    arguments |= {"num_heads": spec.heads, "hidden_dim": spec.width, "mlp_dim": 4 * spec.width}
    network = torchvision.models.VisionTransformer(**arguments)
    network.heads = nn.Identity()
    code += [f"network = torchvision.models.VisionTransformer({written(arguments)})"]
    code += [f"network.heads = torch.nn.Identity()  # network(x) is {output_comment(encoder)}"]
    if channels != 3:
        size = encoder.patch_size
        network.conv_proj = nn.Conv2d(channels, spec.width, size, stride=size)
        code.append(f"network.conv_proj = torch.nn.Conv2d({channels}, {spec.width}, {size}, stride={size})")
    return ConversionTarget(network, "", torchvision_vit_names, tuple(code))


def _none_of_ours(to: str, encoder: ReshapedEncoder) -> WeightsError:
    has_gains, has_registers = GAIN in encoder.state, REGISTERS in encoder.state
    remedy = "give patch_size 16, or convert to monai-vit"
    if has_gains:
        remedy = "leave patch_size out, or fold LayerScale too, with patches of 16 pixels"
    if has_registers:
        remedy = "leave patch_size and fold_layer_scale out"
    return WeightsError(
        f"{encoder.origin} with patches of {encoder.patch_size} pixels and {'' if has_gains else 'no '}LayerScale is "
        f"none of the encoders that a file for {to} is read back as: {remedy}."
    )
