"""Networks with one output per pixel over any of our encoders: a linear decoder, U-Net, DeepLabV3+ and DPT."""

from __future__ import annotations

from typing import Any

import torch
from segmentation_models_pytorch import DeepLabV3Plus
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ssl_transfer.networks.backbones import TappedViT
from monai_ssl_transfer.networks.encoders import build_encoder, encoder_spec
from monai_ssl_transfer.networks.segmentation import build_unet

DECODERS = {"linear": ("resnet", "vit"), "unet": ("resnet", "vit"), "deeplabv3plus": ("resnet",), "dpt": ("vit",)}
"""The decoders, and the families of encoders that each one takes."""
FUSION_SHARE = 3
"""Width of DPT's fusion is this fraction of the encoder's: 256 at the paper's ViT-B."""
OUTPUT_STRIDE = 16


def build_dense(
    encoder: str, decoder: str, in_channels: int = 3, out_channels: int = 2, image_size: int = 224
) -> nn.Module:
    """Build a 2-D network `(B, in_channels, H, W)` -> `(B, out_channels, H, W)` around a pretrained encoder.

    - "linear": one 1x1 convolution on the encoder's last feature map (stride 32 for ResNets, the patch tokens of a
      ViT), upsampled bilinearly: what the encoder knows by itself.
    - "unet": `build_unet`.
    - "deeplabv3plus": segmentation_models_pytorch's DeepLabV3+ at output stride 16, for ResNets (Chen et al. 2018).
    - "dpt": dense prediction transformer, for ViTs (Ranftl et al. 2021).

    Height and width of the input must be multiples of 16 (U-Net over a ResNet: of 32; DINOv2's encoders: of 14, and
    no U-Net); "linear" over a ResNet takes every size.

    Args:
        encoder: one of `encoder_names()`.
        decoder: one of "linear", "unet", "deeplabv3plus" and "dpt".
        in_channels: channels of the input.
        out_channels: channels of the output: classes including the background, or 1 for a depth.
        image_size: side in pixels for which a ViT's position embedding is made; other sizes resample it in every
            forward pass. Ignored by ResNets.

    Raises:
        ValueError: for an unknown encoder or decoder, or two that do not go together.
    """
    family = encoder_spec(encoder).family
    if decoder not in DECODERS:
        raise ValueError(f"Unknown decoder {decoder!r}: choose one of {', '.join(DECODERS)}.")
    if family not in DECODERS[decoder]:
        able = ", ".join(name for name, families in DECODERS.items() if family in families)
        raise ValueError(f"The decoder {decoder!r} does not fit {encoder}: choose one of {able}.")
    if decoder == "linear":
        return LinearDense(encoder, in_channels, out_channels, image_size)
    if decoder == "unet":
        return build_unet(encoder, in_channels, out_channels, image_size=image_size)
    if decoder == "deeplabv3plus":
        return _deeplabv3plus(encoder, in_channels, out_channels)
    return DensePredictionTransformer(encoder, in_channels, out_channels, image_size)


class LinearDense(nn.Module):
    """One 1x1 convolution on the encoder's last feature map, upsampled bilinearly to the size of the input.

    Args:
        encoder: one of `encoder_names()`.
        in_channels: channels of the input.
        out_channels: channels of the output.
        image_size: see `build_dense`.
    """

    def __init__(self, encoder: str, in_channels: int, out_channels: int, image_size: int):
        super().__init__()
        spec = encoder_spec(encoder)
        self.is_vit = spec.family == "vit"
        self.patch_size = spec.patch_size
        self.prefix_tokens = spec.prefix_tokens
        self.encoder: Any = build_encoder(encoder, in_channels, image_size)
        self.decoder = nn.Conv2d(spec.width, out_channels, 1)

    def features(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the last feature map, `(B, D, H/32, W/32)`, of a ViT `(B, D, H/patch, W/patch)`."""
        features = self.encoder.forward_features(x)
        if self.is_vit:
            rows, columns = x.shape[2] // self.patch_size, x.shape[3] // self.patch_size
            features = features[:, self.prefix_tokens :].transpose(1, 2).reshape(x.shape[0], -1, rows, columns)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, out_channels, H, W)`."""
        return _resize(self.decoder(self.features(x)), x.shape[2], x.shape[3])


def _deeplabv3plus(encoder: str, in_channels: int, out_channels: int) -> DeepLabV3Plus:
    """DeepLabV3+ whose dilated encoder still computes what it was pretrained to.

    segmentation_models_pytorch dilates also the convolution that had the stride, which then looks at other neighbours
    than in pretraining. Only what follows it may be dilated ("a trous", Chen et al. 2017, DeepLab): every second row
    and column of the deepest map is then the map of the plain encoder, bit for bit up to the order of sums.
    """
    network = DeepLabV3Plus(
        encoder_name=encoder,
        encoder_weights=None,
        encoder_output_stride=OUTPUT_STRIDE,
        in_channels=in_channels,
        classes=out_channels,
    )
    entry = entry_convolution(network.encoder.layer4)
    entry.dilation, entry.padding = (1, 1), (1, 1)
    return network


def entry_convolution(stage: Any) -> nn.Conv2d:
    """The 3x3 convolution of a ResNet's stage that carries the stride (torchvision's, timm's and MONAI's blocks)."""
    block = stage[0]
    return block.conv2 if hasattr(block, "conv3") else block.conv1


class DensePredictionTransformer(nn.Module):
    """DPT over a timm ViT: tokens of four depths, reassembled into maps of strides 4 to 32 and fused from the coarsest.

    Written after Ranftl et al. 2021, "Vision transformers for dense prediction", with the class token projected into
    every patch token ("readout project") and batch norm in the fusion, as the paper has it for segmentation. Different
    from the paper, the last tap is normalised as in the encoder's own forward pass (all of its parameters take part),
    and maps are upsampled to the size of the next one, so that an odd number of tokens works.

    Args:
        encoder: a ViT of `encoder_names()`.
        in_channels: channels of the input.
        out_channels: channels of the output.
        image_size: see `build_dense`.
    """

    def __init__(self, encoder: str, in_channels: int, out_channels: int, image_size: int):
        super().__init__()
        self.encoder = TappedViT(encoder, in_channels, image_size)
        width = encoder_spec(encoder).width
        fusion = width // FUSION_SHARE
        self.decoder = DPTPyramidDecoder(width, fusion)
        self.segmentation_head = nn.Sequential(
            nn.Conv2d(fusion, fusion, 3, padding=1, bias=False),
            nn.BatchNorm2d(fusion),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(fusion, out_channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, out_channels, H, W)`."""
        rows, columns = x.shape[2] // self.encoder.patch_size, x.shape[3] // self.encoder.patch_size
        fused = self.decoder(self.encoder(x), rows, columns)
        return _resize(self.segmentation_head(fused), x.shape[2], x.shape[3])


class DPTPyramidDecoder(nn.Module):
    """Reassembly of four sets of tokens and their fusion.

    Args:
        width: length D of a token.
        fusion_channels: channels of all maps in the fusion.
    """

    def __init__(self, width: int, fusion_channels: int):
        super().__init__()
        # D/8, D/4, D/2, D: the paper's 96, 192, 384, 768 at ViT-B.
        channels = [width // 8, width // 4, width // 2, width]
        resamplers: list[nn.Module] = [
            nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
            nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
            nn.Identity(),
            nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
        ]
        self.readout = nn.ModuleList(nn.Sequential(nn.Linear(2 * width, width), nn.GELU()) for _ in channels)
        self.reassemble = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, each, 1), resampler, nn.Conv2d(each, fusion_channels, 3, padding=1, bias=False)
            )
            for each, resampler in zip(channels, resamplers, strict=True)
        )
        # The coarsest map has nothing to be fused with: its stage needs one residual unit only.
        self.skip = nn.ModuleList(ResidualConvolutions(fusion_channels) for _ in channels[1:])
        self.fuse = nn.ModuleList(
            nn.Sequential(ResidualConvolutions(fusion_channels), nn.Conv2d(fusion_channels, fusion_channels, 1))
            for _ in channels
        )

    def maps(self, tokens: list[Tensor], rows: int, columns: int) -> list[Tensor]:
        """Map four `(B, 1 + rows*columns, D)` to four maps of strides 4, 8, 16 and 32, finest first."""
        maps: list[Tensor] = []
        for number, (readout, reassemble) in enumerate(zip(self.readout, self.reassemble)):  # noqa: B905 (TorchScript)
            patches = tokens[number][:, 1:]
            whole = tokens[number][:, :1].expand_as(patches)
            grid = readout(torch.cat([patches, whole], dim=2)).transpose(1, 2)
            maps.append(reassemble(grid.reshape(grid.shape[0], -1, rows, columns)))
        return maps

    def forward(self, tokens: list[Tensor], rows: int, columns: int) -> Tensor:
        """Map four `(B, 1 + rows*columns, D)` to one map `(B, fusion_channels, 8*rows, 8*columns)`."""
        maps = self.maps(tokens, rows, columns)
        maps.reverse()
        skipped = [maps[0]]
        for number, skip in enumerate(self.skip):
            skipped.append(skip(maps[number + 1]))
        fused = torch.zeros_like(maps[0])
        for number, fuse in enumerate(self.fuse):
            fused = fuse(skipped[number] + fused)
            if number + 1 < len(skipped):
                fused = _resize(fused, skipped[number + 1].shape[2], skipped[number + 1].shape[3])
        return _resize(fused, 8 * rows, 8 * columns)


class ResidualConvolutions(nn.Module):
    """DPT's residual unit: twice ReLU, 3x3 convolution and batch norm, added to the input.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return x + self.layers(x)


def _resize(x: Tensor, rows: int, columns: int) -> Tensor:
    """Bilinear, corners not aligned: pixel centres stay where they are."""
    return F.interpolate(x, size=[rows, columns], mode="bilinear", align_corners=False)
