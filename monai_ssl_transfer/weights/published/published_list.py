"""Published files of weights: what they are, the SHA-256 of their bytes, and their terms.

Hashes of GastroNet-5M are those of the listing of its hub (facts of the project). The others are no statements of their
publishers but were found, the same in all of several independent public programs that check the file after downloading
it from its publisher. A file without hash is known by its name alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_ssl_transfer.weights.published.terms import (
    AUGREG,
    DINO,
    DINOV2,
    GASTRONET,
    MAE,
    MOCO_V2,
    MOCO_V3,
    RADNET,
    TORCHVISION,
    Terms,
)


@dataclass(frozen=True)
class KnownFile:
    """A published file of weights.

    Args:
        name: name of the file at its source.
        sha256: SHA-256 of its bytes, in hexadecimal digits; empty if none is published, so that the name is all there
            is to know the file by.
        terms: its licence.
        architecture: encoder in it, as in `networks.encoders`.
        method: how it was pretrained, as modules in `methods`, or "supervised".
        domain: what it was pretrained on.
        names: other names it is met under.
        megabytes: its size in millions of bytes.
        mean: mean of the input's channels in pretraining, on a scale of 0 to 1; empty if unknown.
        std: their standard deviation.
        image_size: side of the input in pixels; None if unknown.
        note: what else should be known; where its hash was read.
    """

    name: str
    sha256: str
    terms: Terms
    architecture: str
    method: str
    domain: str
    names: tuple[str, ...] = ()
    megabytes: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image_size: int | None = None
    note: str = ""

    @property
    def licence(self) -> str:
        """Text to show before use."""
        return self.terms.licence

    @property
    def acknowledgement(self) -> str:
        """What the authors ask users to cite or to state; empty if nothing was found."""
        return self.terms.acknowledgement

    @property
    def redistribution(self) -> bool | None:
        """Whether copies may be handed on; None if that was not found."""
        return self.terms.redistribution

    @property
    def commercial(self) -> bool | None:
        """Whether commercial use is allowed; None if that was not found."""
        return self.terms.commercial


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET = "natural images (ImageNet-1k)"
SWSL = "RN50_Billion-Scale-SWSL{}GastroNet-5M_DINOv1.pth"
"""Hubs and tools write the plus sign in its name differently."""
GASTRONET_NOTE = "mean, std and image size are those that its users apply; its authors state none"


def _gastronet(name: str, sha256: str, method: str, images: str = "5 million", **changed: Any) -> KnownFile:
    values: dict[str, Any] = {
        "architecture": "resnet50",
        "domain": f"gastrointestinal endoscopy (GastroNet, {images} images)",
        "megabytes": 94.4,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "image_size": 224,
        "note": GASTRONET_NOTE,
    }
    return KnownFile(name, sha256, GASTRONET, method=method, **(values | changed))


def _natural(name: str, sha256: str, terms: Terms, architecture: str, method: str, **changed: Any) -> KnownFile:
    values: dict[str, Any] = {
        "domain": IMAGENET,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "image_size": 224,
    }
    return KnownFile(name, sha256, terms, architecture, method, **(values | changed))


_LVD = {"domain": "natural images (LVD-142M)", "image_size": 518}
_I21K = {
    "domain": "natural images (ImageNet-21k)",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}

KNOWN_FILES: tuple[KnownFile, ...] = (
    _gastronet(
        "RN50_GastroNet-5M_DINOv1.pth", "5ae8e09cea634179e8caf95dbead1a86d7ce05d1e934c80c742b9ff5887f44dd", "dino"
    ),
    _gastronet(
        "RN50_GastroNet-1M_DINOv1.pth",
        "ced56c7b86f76b267c46220d17c30615f92c9a8e1202e94f2e98f09bc73d0ea1",
        "dino",
        "1 million",
    ),
    _gastronet(
        "RN50_GastroNet-200K_DINOv1.pth",
        "2dbf41d5123202c151467c361112ee4da8c18f96cf3e3ee6a7f09cddab1094ff",
        "dino",
        "200 000",
    ),
    _gastronet(
        "RN50_GastroNet-5M_MOCOv2.pth", "695b892942b8862c03bf80d00da9934eeb7040511a27758c7adc93052db8f228", "moco_v2"
    ),
    _gastronet(
        "RN50_GastroNet-5M_SIMCLRv2.pth", "8d520d19ea72ca3fcb41cf737fc6f9842d5c25c9d1e17f0e7936de8ba8fd2aac", "simclr"
    ),
    _gastronet(
        SWSL.format("+"),
        "5688929fea4437031604001495fb77fb18cdc2ff92ae24120f93aeceaf5aa16d",
        "dino",
        names=tuple(SWSL.format(plus) for plus in ("%2B", "_2B", "2B")),
        domain="gastrointestinal endoscopy (GastroNet, 5 million images), begun with weights that were trained on a "
        "billion natural images by semi-weak supervision (SWSL)",
    ),
    _gastronet(
        "VITS_GastroNet-5M_DINOv1.pth",
        "383c7a9a026cc7a8ecf0a201713714f91f51384fcacb0a7226df77212aa7da77",
        "dino",
        architecture="vit_small",
        megabytes=86.7,
    ),
    _gastronet(
        "dinov2.pth",
        "20ab749ec4bfdd53a79fc82784d04d9480d87d9f122b877d0f20c6f40aabdc44",
        "dinov2",
        architecture="vit_base_dinov2_reg",
        megabytes=436.5,
        image_size=None,
        domain="gastrointestinal endoscopy (GastroNet, 4.8 million images), begun with DINOv2's weights",
        note="with the heads of training; mean and std are those that its users apply, its authors state none",
    ),
    _natural(
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        TORCHVISION,
        "resnet18",
        "supervised",
        megabytes=46.830571,
    ),
    _natural(
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        TORCHVISION,
        "resnet50",
        "supervised",
        megabytes=102.530333,
    ),
    _natural(
        "resnet50-11ad3fa6.pth",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        TORCHVISION,
        "resnet50",
        "supervised",
        megabytes=102.540417,
        note="trained on crops of 176 pixels, evaluated on 224",
    ),
    _natural(
        "dinov2_vits14_pretrain.pth",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        DINOV2,
        "vit_small_dinov2",
        "dinov2",
        megabytes=88.283115,
        **_LVD,
    ),
    _natural(
        "dinov2_vits14_reg4_pretrain.pth",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        DINOV2,
        "vit_small_dinov2_reg",
        "dinov2",
        **_LVD,
    ),
    _natural(
        "dinov2_vitb14_pretrain.pth",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        DINOV2,
        "vit_base_dinov2",
        "dinov2",
        megabytes=346.378731,
        **_LVD,
    ),
    _natural(
        "dinov2_vitb14_reg4_pretrain.pth",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
        DINOV2,
        "vit_base_dinov2_reg",
        "dinov2",
        megabytes=346.393545,
        **_LVD,
    ),
    _natural(
        "dino_vitbase16_pretrain.pth",
        "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
        DINO,
        "vit_base",
        "dino",
        megabytes=343.242485,
    ),
    # known by their names alone
    _natural("dino_vitbase16_pretrain_full_checkpoint.pth", "", DINO, "vit_base", "dino"),
    _natural("dino_deitsmall16_pretrain.pth", "", DINO, "vit_small", "dino"),
    _natural("dino_deitsmall16_pretrain_full_checkpoint.pth", "", DINO, "vit_small", "dino"),
    _natural("dino_resnet50_pretrain.pth", "", DINO, "resnet50", "dino"),
    _natural("dino_resnet50_pretrain_full_checkpoint.pth", "", DINO, "resnet50", "dino"),
    _natural("mae_pretrain_vit_base.pth", "", MAE, "vit_base", "mae"),
    _natural("mae_pretrain_vit_base_full.pth", "", MAE, "vit_base", "mae"),
    *(
        _natural(f"moco_v2_{epochs}ep_pretrain.pth.tar", "", MOCO_V2, "resnet50", "moco_v2", names=names)
        for epochs, names in ((200, ()), (800, ("moco_v2_800ep_pretrain.pt",)))
    ),
    *(_natural(f"r-50-{epochs}ep.pth.tar", "", MOCO_V3, "resnet50", "moco_v3") for epochs in (100, 300, 1000)),
    _natural("vit-s-300ep.pth.tar", "", MOCO_V3, "vit_small_moco_v3", "moco_v3"),
    _natural("vit-b-300ep.pth.tar", "", MOCO_V3, "vit_base", "moco_v3"),
    _natural("resnet50-19c8e357.pth", "", TORCHVISION, "resnet50", "supervised"),
    _natural("resnet18-5c106cde.pth", "", TORCHVISION, "resnet18", "supervised"),
    _natural(
        "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz", "", AUGREG, "vit_tiny", "supervised", **_I21K
    ),
    _natural(
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz", "", AUGREG, "vit_small", "supervised", **_I21K
    ),
    _natural(
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz", "", AUGREG, "vit_base", "supervised", **_I21K
    ),
    KnownFile(
        "encoder_pretrained.tar",
        "",
        RADNET,
        "resnet50",
        "simclr",
        "CT slices (RadNet) or natural images (ImageNet-1k), or both: the name of its folder tells",
        note="slices were scaled from their least to their greatest value, not by HU",
    ),
)
"""Files that are known by their hash come first."""
