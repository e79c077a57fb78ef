"""Encoders for networks of MONAI."""

from __future__ import annotations

from typing import Any

from monai.networks import nets
from torch import nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.classification import RESNETS
from monai_ssl_transfer.networks.encoders import SPECS
from monai_ssl_transfer.networks.segmentation import STOCK_BACKBONES, build_unet
from monai_ssl_transfer.weights.converting.targets import (
    ConversionTarget,
    ReshapedEncoder,
    output_comment,
    refuse_registers,
    written,
)
from monai_ssl_transfer.weights.transformer_names import monai_vit_names

EPS_LINES = (
    "for module in network.modules():",
    "    if isinstance(module, torch.nn.LayerNorm):",
    "        module.eps = 1e-6  # as pretrained; MONAI's 1e-5 changes the features by about 1e-5",
)


def for_monai_resnet(encoder: ReshapedEncoder) -> ConversionTarget:
    if encoder.is_vit:
        raise WeightsError(f"{encoder.origin} is no ResNet: convert to monai-vit.")
    arguments: dict[str, Any] = {
        "spatial_dims": encoder.spatial_dims,
        "n_input_channels": encoder.in_channels,
        "shortcut_type": "B",
        "bias_downsample": False,
        "conv1_t_size": 7,
        "conv1_t_stride": 2,
        "feed_forward": False,
    }
    network = RESNETS[encoder.origin](**arguments)
    code = ("import monai", f"network = monai.networks.nets.{encoder.origin}({written(arguments)})")
    return ConversionTarget(network, "", dict, code)


def for_monai_vit(encoder: ReshapedEncoder) -> ConversionTarget:
    if not encoder.is_vit:
        raise WeightsError(f"{encoder.origin} is no ViT: convert to monai-resnet or monai-flexible-unet.")
    refuse_registers("MONAI's ViT", encoder)
    spec = SPECS[encoder.origin]
    arguments: dict[str, Any] = {
        "in_channels": encoder.in_channels,
        "img_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "hidden_size": spec.width,
        "mlp_dim": 4 * spec.width,
        "num_layers": spec.depth,
        "num_heads": spec.heads,
        "classification": True,
        "spatial_dims": encoder.spatial_dims,
        "qkv_bias": True,
        "post_activation": None,
    }
    network: Any = nets.ViT(**arguments)
    network.classification_head = nn.Identity()
    code = (
        "import monai, torch",
        f"network = monai.networks.nets.ViT({written(arguments)})",
        f"network.classification_head = torch.nn.Identity()  # network(x)[0] is {output_comment(encoder)}",
        *EPS_LINES,
    )
    return ConversionTarget(network, "", monai_vit_names, code)


def for_monai_flexible_unet(encoder: ReshapedEncoder) -> ConversionTarget:
    arguments: dict[str, Any] = {"in_channels": encoder.in_channels, "out_channels": 2}
    if encoder.origin in STOCK_BACKBONES:
        arguments |= {"backbone": encoder.origin, "spatial_dims": encoder.spatial_dims}
        network: Any = nets.FlexibleUNet(**arguments)
        code = ("import monai", f"network = monai.networks.nets.FlexibleUNet({written(arguments)})")
        return ConversionTarget(network.encoder, "encoder.", dict, code)
    if encoder.spatial_dims == 3:
        raise WeightsError(
            f"FlexibleUNet has no 3-D backbone that holds {encoder.origin}: convert to "
            f"{'monai-vit' if encoder.is_vit else 'monai-resnet'}, or take a resnet50."
        )
    refuse_registers("FlexibleUNet's ViT", encoder)
    if not encoder.architecture or (encoder.is_vit and encoder.patch_size != 16):
        raise WeightsError(
            f"FlexibleUNet needs patches of 16 pixels but {encoder.origin} has {encoder.patch_size}: resample them "
            "with patch_size 16 and an image_size that is a multiple of 16."
        )
    if encoder.is_vit:
        arguments["image_size"] = encoder.image_size
    network = build_unet(encoder.architecture, **arguments)
    code = (
        "from monai_ssl_transfer.networks import build_unet  # a FlexibleUNet",
        f'network = build_unet("{encoder.architecture}", {written(arguments)})',
    )
    return ConversionTarget(network.encoder.encoder, "encoder.encoder.", dict, code)
