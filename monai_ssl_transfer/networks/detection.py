"""Detection networks: torchvision's Faster R-CNN over any of our encoders."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD
from monai_ssl_transfer.networks.encoders import build_encoder, check_patch_size, encoder_spec

PYRAMID_CHANNELS = 256
LEVELS = ("0", "1", "2", "3")
"""Names of the feature maps at strides 4, 8, 16 and 32; a fifth, "pool", is every second pixel of the last one."""
ANCHORS_PER_SIDE = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Default side of the square anchor of each feature map as a share of the image's longer side."""


def build_detector(
    encoder: str,
    classes: int = 2,
    image_size: int = 512,
    *,
    min_size: int | Sequence[int] | None = None,
    anchor_sizes: Sequence[int] | None = None,
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
    frozen_batch_norm: bool = False,
    box_samples_per_image: int = 512,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    detections_per_image: int = 100,
) -> FasterRCNN:
    """Build a Faster R-CNN that holds a pretrained encoder exactly, under `backbone.body.`.

    ResNets get a feature pyramid network (Lin et al. 2017), ViTs the simple feature pyramid of ViTDet (Li et al. 2022)
    with global attention. Takes a list of RGB photographs `(3, H, W)`, float 0 to 1, of any sizes; it normalises with
    ImageNet's mean and deviation, resizes and pads by itself. In training mode `network(images, targets)` with targets
    of "boxes" `(N, 4)` float (x0, y0, x1, y1 in pixels) and "labels" `(N,)` int64 from 1 on returns a dict of losses;
    in evaluation mode `network(images)` returns per image a dict of "boxes" in the photograph's own pixels, "labels"
    and "scores".

    A ViT's photographs are padded to squares of image_size, so that its position embedding fits without distortion and
    a result does not depend on the rest of the batch.

    Args:
        encoder: one of `encoder_names()`.
        classes: number of classes including the background, which is 0.
        image_size: the longer side of a photograph after resizing, in pixels; a multiple of 32.
        min_size: the shorter side is resized to this as long as the longer one stays within image_size; several
            values are drawn from in training (the last one counts in evaluation). None: always to image_size.
        anchor_sizes: sides of the anchors at strides 4, 8, 16, 32 and 64 in resized pixels; None: a sixteenth of
            image_size to all of it (32 to 512 at 512, torchvision's default).
        aspect_ratios: height by width of the anchors.
        frozen_batch_norm: keep the encoder's batch norm at its pretrained statistics and weights for good, for small
            batches (ResNets only).
        box_samples_per_image: proposals per image that the box head learns from; most of the time of a training step
            on a CPU goes into them.
        score_threshold: detections with a lower score are left out.
        nms_threshold: of two detections of a class whose IoU is above, the one with the lower score is left out.
        detections_per_image: at most so many, those with the highest scores.

    Raises:
        ValueError: for an unknown encoder or a ViT whose patches are not 16 pixels, an image_size that is no multiple
            of 32, other than five anchor sizes, or frozen batch norm in a ViT.
    """
    is_vit = encoder_spec(encoder).family == "vit"
    check_patch_size(encoder, "A detector")
    if image_size % 32:
        raise ValueError(f"image_size {image_size} is not a multiple of 32.")
    sizes = tuple(anchor_sizes or (round(share * image_size) for share in ANCHORS_PER_SIDE))
    if len(sizes) != len(ANCHORS_PER_SIDE):
        raise ValueError(f"anchor_sizes {sizes}: give five, one for each of the strides 4, 8, 16, 32 and 64.")
    if is_vit and frozen_batch_norm:
        raise ValueError(f"frozen_batch_norm does not fit {encoder}: a ViT has no batch norm.")
    return FasterRCNN(
        ViTBackboneWithPyramid(encoder, image_size) if is_vit else _resnet_backbone(encoder, frozen_batch_norm),
        classes,
        min_size=image_size if min_size is None else min_size,
        max_size=image_size,
        size_divisible=image_size if is_vit else 32,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in sizes), (tuple(float(ratio) for ratio in aspect_ratios),) * len(sizes)
        ),
        box_roi_pool=_roi_pool(),
        box_batch_size_per_image=box_samples_per_image,
        box_score_thresh=score_threshold,
        box_nms_thresh=nms_threshold,
        box_detections_per_img=detections_per_image,
    )


def _resnet_backbone(encoder: str, frozen_batch_norm: bool) -> BackboneWithFPN:
    """A timm ResNet without its pooling under `body`, and a feature pyramid network under `fpn`."""
    resnet: Any = build_encoder(encoder)
    if frozen_batch_norm:
        _freeze_batch_norm(resnet)
    channels = [info["num_chs"] for info in resnet.feature_info[1:]]
    layers = {f"layer{number + 1}": level for number, level in enumerate(LEVELS)}
    return BackboneWithFPN(resnet, layers, channels, PYRAMID_CHANNELS)


def _freeze_batch_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _freeze_batch_norm(child)


class ViTBackboneWithPyramid(nn.Module):
    """A timm ViT under `body`, and ViTDet's simple feature pyramid of its last tokens under `fpn`.

    Args:
        encoder: a ViT of `encoder_names()`.
        image_size: side in pixels for which the position embedding is made.
    """

    def __init__(self, encoder: str, image_size: int):
        super().__init__()
        self.patch_size = encoder_spec(encoder).patch_size
        self.out_channels = PYRAMID_CHANNELS
        self.body: Any = build_encoder(encoder, image_size=image_size)
        self.fpn = SimpleFeaturePyramid(encoder_spec(encoder).width, PYRAMID_CHANNELS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map `(B, 3, H, W)`, multiples of 32, to `(B, 256, H/s, W/s)` at strides s of 4, 8, 16, 32 and 64."""
        rows, columns = x.shape[2] // self.patch_size, x.shape[3] // self.patch_size
        tokens = self.body.forward_features(x)[:, 1:]
        return self.fpn(tokens.transpose(1, 2).reshape(x.shape[0], -1, rows, columns))


class SimpleFeaturePyramid(nn.Module):
    """Maps of strides 4, 8, 16, 32 and 64 from one of stride 16.

    After Li et al. 2022, "Exploring plain vision transformer backbones for object detection", section 3.

    Args:
        width: channels of the input.
        channels: channels of every output.
    """

    def __init__(self, width: int, channels: int):
        super().__init__()
        half, quarter = width // 2, width // 4
        scales: list[tuple[int, list[nn.Module]]] = [
            (
                quarter,
                [
                    nn.ConvTranspose2d(width, half, 2, stride=2),
                    LayerNorm2d(half),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, 2, stride=2),
                ],
            ),
            (half, [nn.ConvTranspose2d(width, half, 2, stride=2)]),
            (width, []),
            (width, [nn.MaxPool2d(2)]),
        ]
        self.scales = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(inside, channels, 1, bias=False),
                LayerNorm2d(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                LayerNorm2d(channels),
            )
            for inside, layers in scales
        )
        self.last = LastLevelMaxPool()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map `(B, width, H/16, W/16)` to five maps of `channels`, finest first."""
        maps: list[Tensor] = []
        names: list[str] = []
        for number, scale in enumerate(self.scales):
            maps.append(scale(x))
            names.append(str(number))
        maps, names = self.last(maps, maps, names)
        pyramid: dict[str, Tensor] = OrderedDict()
        for number, name in enumerate(names):
            pyramid[name] = maps[number]
        return pyramid


def _roi_pool() -> MultiScaleRoIAlign:
    """A pooler that knows its strides.

    Left alone it infers them from the first batch, as feature map by *unpadded* image, which is a factor of two off
    where a wide photograph was padded to a square, for the rest of the run.
    """
    pool = MultiScaleRoIAlign(list(LEVELS), output_size=7, sampling_ratio=2)
    maps = {level: torch.zeros(1, 1, 64 >> number, 64 >> number) for number, level in enumerate(LEVELS)}
    pool(maps, [torch.tensor([[0.0, 0.0, 64.0, 64.0]])], [(256, 256)])
    return pool
