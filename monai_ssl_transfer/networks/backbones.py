"""timm encoders as backbones of MONAI's FlexibleUNet, where the stock backbones cannot hold the weights exactly.

MONAI's own `resnet18` has parameter-free shortcuts, and it has no ViT backbone. Importing this module registers
`ssl_resnet18`, `ssl_vit_tiny`, `ssl_vit_small` and `ssl_vit_base`; in a FlexibleUNet the encoder's tensors are then
found under `encoder.encoder.` with canonical names, and everything else (the pyramid of a ViT) beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks import BaseEncoder
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn

from monai_ssl_transfer.networks.encoders import build_encoder, encoder_spec

REGISTERED_PREFIX = "ssl_"
RESNET_CHANNELS = {"resnet18": (64, 64, 128, 256, 512)}
VIT_CHANNELS = {
    "vit_tiny": (32, 64, 128, 192, 192),
    "vit_small": (32, 64, 128, 256, 384),
    "vit_base": (64, 128, 256, 512, 768),
}


def check_backbone(spatial_dims: int, pretrained: bool) -> None:
    """Refuse what the registered backbones do not offer.

    Raises:
        ValueError: for 3-D input or `pretrained=True`.
    """
    if spatial_dims != 2:
        raise ValueError(f"spatial_dims={spatial_dims}: the registered backbones are 2-D.")
    if pretrained:
        raise ValueError("pretrained=True downloads nothing here: call weights.load_encoder_weights on the network.")


class RegisteredBackbone(nn.Module, BaseEncoder):
    """What FlexibleUNet's register asks of a backbone class, answered from `channels_by_name`."""

    channels_by_name = RESNET_CHANNELS

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        """Names under which FlexibleUNet finds these backbones."""
        return [REGISTERED_PREFIX + name for name in cls.channels_by_name]

    @classmethod
    def get_encoder_parameters(cls) -> list[dict]:
        """Constructor arguments per name; FlexibleUNet overwrites all but `architecture`."""
        fixed = {"spatial_dims": 2, "in_channels": 3, "pretrained": False}
        return [{"architecture": name, **fixed} for name in cls.channels_by_name]

    @classmethod
    def num_outputs(cls) -> list[int]:
        """Number of feature maps per name."""
        return [5] * len(cls.channels_by_name)

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        """Channels of the feature maps per name."""
        return list(cls.channels_by_name.values())


class TimmResNetBackbone(RegisteredBackbone):
    """A timm ResNet that returns its five feature maps, at strides 2, 4, 8, 16 and 32.

    Args:
        architecture: a ResNet of `encoder_names()`.
        spatial_dims: 2, required by FlexibleUNet.
        in_channels: channels of the input.
        pretrained: False, required by FlexibleUNet.
    """

    def __init__(self, architecture: str, spatial_dims: int = 2, in_channels: int = 3, pretrained: bool = False):
        super().__init__()
        check_backbone(spatial_dims, pretrained)
        self.architecture = architecture
        self.encoder: Any = build_encoder(architecture, in_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map `(B, C, H, W)` to the five feature maps, finest first."""
        stem = self.encoder.act1(self.encoder.bn1(self.encoder.conv1(x)))
        stride4 = self.encoder.layer1(self.encoder.maxpool(stem))
        stride8 = self.encoder.layer2(stride4)
        stride16 = self.encoder.layer3(stride8)
        return [stem, stride4, stride8, stride16, self.encoder.layer4(stride16)]


class TappedViT(nn.Module):
    """A timm ViT that returns its tokens after four evenly spaced blocks (3, 6, 9 and 12 of 12).

    Args:
        architecture: a ViT of `encoder_names()`.
        in_channels: channels of the input.
        image_size: side in pixels for which the position embedding is made.
    """

    def __init__(self, architecture: str, in_channels: int = 3, image_size: int = 224):
        super().__init__()
        self.architecture = architecture
        spec = encoder_spec(architecture)
        self.patch_size = spec.patch_size
        self.registers = spec.registers
        self.encoder: Any = build_encoder(architecture, in_channels, image_size)
        self.taps = [spec.depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]

    def tokens(self, x: Tensor) -> list[Tensor]:
        """Map `(B, C, H, W)` to the class token and the patches' after the four tapped blocks: `(B, 1 + N, D)`."""
        tokens = self.encoder.norm_pre(self.encoder.patch_drop(self.encoder._pos_embed(self.encoder.patch_embed(x))))
        tapped: list[Tensor] = []
        for number, block in enumerate(self.encoder.blocks):
            tokens = block(tokens)
            if number in self.taps:
                tapped.append(tokens)
        tapped[-1] = self.encoder.norm(tapped[-1])
        if self.registers > 0:
            tapped = [torch.cat([each[:, :1], each[:, 1 + self.registers :]], dim=1) for each in tapped]
        return tapped

    def forward(self, x: Tensor) -> list[Tensor]:
        """The same as `tokens`."""
        return self.tokens(x)


class TimmViTBackbone(TappedViT, RegisteredBackbone):
    """A timm ViT with a light convolutional pyramid: four evenly spaced taps become strides 4, 8, 16 and 32.

    All tokens of a plain ViT have stride 16. As in ViTDet (Li et al. 2022, "Exploring plain vision transformer
    backbones") the maps of other strides come from single (transposed) convolutions; the map of stride 2, which no
    token can give, is two convolutions of the image. These layers are new in every transfer and live in `pyramid`
    and `stem`, outside of the encoder. Height and width must be multiples of 16.

    Args:
        architecture: a ViT of `encoder_names()`.
        spatial_dims: 2, required by FlexibleUNet.
        in_channels: channels of the input.
        pretrained: False, required by FlexibleUNet.
    """

    channels_by_name = VIT_CHANNELS

    def __init__(self, architecture: str, spatial_dims: int = 2, in_channels: int = 3, pretrained: bool = False):
        check_backbone(spatial_dims, pretrained)
        super().__init__(architecture, in_channels)
        width = encoder_spec(architecture).width
        self.stem, self.pyramid = _vit_pyramid(in_channels, width, VIT_CHANNELS[architecture])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map `(B, C, H, W)` to five feature maps at strides 2, 4, 8, 16 and 32, finest first."""
        rows, columns = x.shape[2] // self.patch_size, x.shape[3] // self.patch_size
        tapped = self.tokens(x)
        features = [self.stem(x)]
        for number, layer in enumerate(self.pyramid):
            grid = tapped[number][:, 1:].transpose(1, 2).reshape(x.shape[0], -1, rows, columns)
            features.append(layer(grid))
        return features


def _vit_pyramid(in_channels: int, width: int, channels: tuple[int, ...]) -> tuple[nn.Sequential, nn.ModuleList]:
    """The stem of stride 2 and the four layers that bring tokens of stride 16 to strides 4, 8, 16 and 32."""
    stem = nn.Sequential(
        nn.Conv2d(in_channels, channels[0], 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels[0], channels[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(inplace=True),
    )
    stride4 = [nn.ConvTranspose2d(width, channels[1], 2, stride=2), nn.BatchNorm2d(channels[1]), nn.GELU()]
    stride4.append(nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2))
    layers: list[list[nn.Module]] = [
        stride4,
        [nn.ConvTranspose2d(width, channels[2], 2, stride=2)],
        [nn.Conv2d(width, channels[3], 1)],
        # Rounds down: for an odd number of tokens FlexibleUNet's decoder replicates the border, it cannot crop one.
        [nn.Conv2d(width, channels[4], 2, stride=2)],
    ]
    closed = [nn.Sequential(*layer, nn.BatchNorm2d(channels[i + 1]), nn.ReLU()) for i, layer in enumerate(layers)]
    return stem, nn.ModuleList(closed)


def _register() -> None:
    """Tell FlexibleUNet about the backbones."""
    for backbone in (TimmResNetBackbone, TimmViTBackbone):
        FLEXUNET_BACKBONE.register_class(backbone)


_register()
