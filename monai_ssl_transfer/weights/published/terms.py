"""Under which terms published weights may be used, and where that was read.

What is allowed is written only where the source says it; None stands for "not found", never for a guess. A licence that
asks for attribution allows redistribution with it. This is no legal advice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """The licence of published weights.

    Args:
        licence: text to show before use.
        read_in: where it was read.
        redistribution: whether copies may be handed on; None if that was not found.
        commercial: whether commercial use is allowed; None if that was not found.
        acknowledgement: what the authors ask users to cite or to state; empty if nothing was found.
    """

    licence: str
    read_in: str
    redistribution: bool | None = None
    commercial: bool | None = None
    acknowledgement: str = ""


_BOERS = (
    "Boers et al., Foundation models in gastrointestinal endoscopic AI: impact of architecture, pre-training approach "
    "and data efficiency, Medical Image Analysis 98:103298, 2024, doi 10.1016/j.media.2024.103298"
)

GASTRONET = Terms(
    licence="CC BY-NC-ND 4.0 as first published; since January 2026 handed out only under the GastroNet-5M Unified "
    "Data Use Agreement v1.0, without redistribution",
    read_in="model card of huggingface.co/tgwboers/GastroNet-5M_Pretrained_Weights; the agreement itself is at "
    "cortex.thetavision.nl and was not read",
    redistribution=False,
    commercial=False,
    acknowledgement=_BOERS,
)
SSL4GIE = Terms(
    licence="CC BY-NC 4.0",
    read_in="README of github.com/ESandML/SSL4GIE: results with MoCo v3 or MAE are CC BY-NC 4.0, with C3VD CC BY-NC-SA "
    "4.0; the code is Apache-2.0",
    redistribution=True,
    commercial=False,
    acknowledgement="Sanderson and Matuszewski, A study on self-supervised pretraining for vision problems in "
    "gastrointestinal endoscopy, IEEE Access 12:46181, 2024, arXiv 2401.06278",
)
DINO = Terms(
    licence="Apache License 2.0",
    read_in="LICENSE of github.com/facebookresearch/dino; model cards huggingface.co/facebook/dino-*",
    redistribution=True,
    commercial=True,
)
DINOV2 = Terms(
    licence="Apache License 2.0 (code and model weights)",
    read_in="README of github.com/facebookresearch/dinov2",
    redistribution=True,
    commercial=True,
)
MAE = Terms(
    licence="CC BY-NC 4.0",
    read_in="README of github.com/facebookresearch/mae",
    redistribution=True,
    commercial=False,
)
MOCO_V2 = Terms(
    licence="CC BY-NC 4.0",
    read_in="README of github.com/facebookresearch/moco",
    redistribution=True,
    commercial=False,
)
MOCO_V3 = Terms(
    licence="CC BY-NC 4.0",
    read_in="README of github.com/facebookresearch/moco-v3",
    redistribution=True,
    commercial=False,
)
BARLOW_TWINS = Terms(
    licence="MIT License for the project and the weights of its later README (ep1000_bs2048_lrw0.2_lrb0.0048); the "
    "first README, with other weights, said CC BY-NC 4.0",
    read_in="two versions of the README of github.com/facebookresearch/barlowtwins; both files are called resnet50.pth",
)
AUGREG = Terms(
    licence="Apache License 2.0",
    read_in="entries of these files in timm (license apache-2.0); model cards huggingface.co/timm/*.augreg_*",
    redistribution=True,
    commercial=True,
)
TORCHVISION = Terms(
    licence="BSD 3-Clause for the library; its weights may have terms of their own, derived from the dataset used for "
    "training (ImageNet)",
    read_in="pytorch.org/vision/stable/models and README of github.com/pytorch/vision",
)
RADNET = Terms(
    licence="no licence was found, neither for the weights nor for the code: ask the authors",
    read_in="README of github.com/TIO-IKIM/Transfer-learning-across-domain-boundaries",
)

TERMS: dict[str, Terms] = {
    "GastroNet-5M": GASTRONET,
    "SSL4GIE": SSL4GIE,
    "DINO": DINO,
    "DINOv2": DINOV2,
    "MAE": MAE,
    "MoCo v2": MOCO_V2,
    "MoCo v3": MOCO_V3,
    "Barlow Twins": BARLOW_TWINS,
    "AugReg": AUGREG,
    "torchvision": TORCHVISION,
    "RadNet": RADNET,
}
"""Terms by publisher, also for weights of which no file is known by its hash."""
