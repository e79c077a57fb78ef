"""Classification networks that hold a pretrained encoder exactly: MONAI's ResNets and ViT, else timm's."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets import ViT, resnet18, resnet50
from torch import Tensor, nn

from monai_ssl_transfer.networks.encoders import EncoderSpec, build_encoder, encoder_spec

LAYER_NORM_EPS = 1e-6
MONAI_UNUSED = ".norm_cross_attn."
"""Within the names of norms that MONAI's ViT builds in every block and uses in none of its encoders."""
RESNETS = {"resnet18": resnet18, "resnet50": resnet50}


class LogitsViT(ViT):
    """MONAI's ViT with classification head that returns its logits alone, as trainers and exporters expect.

    It differs from the stock network in three ways, none of which changes the names of the tensors: `forward` returns
    `(B, classes)` instead of a pair, LayerNorm's eps is 1e-6 as in timm, DINO, MoCo v3 and MAE (MONAI: 1e-5), and the
    cross-attention norms, which MONAI builds but never uses, need no gradient (DDP would wait for it).

    Args:
        spec: width, depth and heads of the encoder.
        in_channels: channels of the input.
        classes: number of logits.
        image_size: side of the input in pixels, which MONAI's ViT fixes.
    """

    def __init__(self, spec: EncoderSpec, in_channels: int, classes: int, image_size: int):
        super().__init__(
            in_channels=in_channels,
            img_size=image_size,
            patch_size=spec.patch_size,
            hidden_size=spec.width,
            mlp_dim=4 * spec.width,
            num_layers=spec.depth,
            num_heads=spec.heads,
            classification=True,
            num_classes=classes,
            spatial_dims=2,
            post_activation=None,
            qkv_bias=True,
        )
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = LAYER_NORM_EPS
        for name, parameter in self.named_parameters():
            if MONAI_UNUSED in name:
                parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, classes)` logits."""
        x = self.patch_embedding(x)
        tokens = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.classification_head(self.norm(tokens)[:, 0])


class EncoderClassifier(nn.Module):
    """An encoder and a linear layer: for encoders that no network of MONAI can hold.

    Args:
        encoder: maps `(B, C, H, W)` to `(B, D)`.
        width: the D of what it gives.
        classes: number of logits.
    """

    def __init__(self, encoder: nn.Module, width: int, classes: int):
        super().__init__()
        self.encoder: Any = encoder
        self.classification_head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, classes)` logits."""
        return self.classification_head(self.encoder(x))


class ProjectedEncoder(nn.Module):
    """An encoder and the first layer of the projection head that it was pretrained with.

    Args:
        body: maps `(B, C, H, W)` to `(B, D)`.
        width: its D.
        hidden_dim: width of the projection head.
    """

    def __init__(self, body: nn.Module, width: int, hidden_dim: int):
        super().__init__()
        self.body = body
        self.projection_head = nn.Sequential(
            nn.Linear(width, hidden_dim, bias=False), nn.BatchNorm1d(hidden_dim), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, hidden_dim)`."""
        return self.projection_head(self.body(x))


def projection_of(network: nn.Module) -> tuple[str, nn.Sequential | None]:
    """The layers of a projection head that a network begins with, and how their names start in it.

    Args:
        network: any network; only those of `build_projected_classifier` have such layers.
    """
    if isinstance(network, EncoderClassifier) and isinstance(network.encoder, ProjectedEncoder):
        return "encoder.projection_head.", network.encoder.projection_head
    return "", None


def build_projected_classifier(
    encoder: str, in_channels: int = 3, classes: int = 2, hidden_dim: int = 2048, image_size: int = 224
) -> nn.Module:
    """Build a classifier on a middle layer of SimCLR v2's projection head (arXiv 2006.10029, section 2).

    The first layer of the head (linear, batch norm, ReLU) belongs to the encoder, is loaded with it, and is trained at
    its rate or frozen with it; the logits are a linear function of what it gives. The paper finds that this helps most
    with few labels.

    Args:
        encoder: one of `encoder_names()`.
        in_channels: channels of the input.
        classes: number of logits.
        hidden_dim: width of the projection head in pretraining.
        image_size: side of the input in pixels for which a ViT's position embedding is made.
    """
    width = encoder_spec(encoder).width
    projected = ProjectedEncoder(build_encoder(encoder, in_channels, image_size), width, hidden_dim)
    return EncoderClassifier(projected, hidden_dim, classes)


def build_classifier(encoder: str, in_channels: int = 3, classes: int = 2, image_size: int = 224) -> nn.Module:
    """Build a 2-D classifier `(B, in_channels, H, W)` -> `(B, classes)` logits that holds a pretrained encoder exactly.

    ResNets are MONAI's stock networks with the arguments that make them equal to torchvision's; in a bundle they can
    also be written out: `shortcut_type="B", bias_downsample=False, conv1_t_size=7, conv1_t_stride=2`. With MONAI's
    default stride of 1 in the stem the same weights load and mean something else. DINOv2's encoders (learnt gains,
    registers) stay timm's, with a linear layer on the class token.

    Args:
        encoder: one of `encoder_names()`.
        in_channels: channels of the input.
        classes: number of logits.
        image_size: side of the input in pixels; only a ViT is bound to it.
    """
    spec = encoder_spec(encoder)
    if spec.layer_scale or spec.registers:
        return EncoderClassifier(build_encoder(encoder, in_channels, image_size), spec.width, classes)
    if spec.family == "vit":
        return LogitsViT(spec, in_channels, classes, image_size)
    return RESNETS[encoder](
        spatial_dims=2,
        n_input_channels=in_channels,
        num_classes=classes,
        shortcut_type="B",
        bias_downsample=False,
        conv1_t_size=7,
        conv1_t_stride=2,
    )
