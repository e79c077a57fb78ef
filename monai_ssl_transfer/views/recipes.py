"""The published recipes of views as data: one frozen `ViewRecipe` per view.

RGB recipes are the published ones. CT recipes keep the published geometry (crop scales, sizes, number of views, blur
probabilities) and replace colour by what varies between CT examinations: window level and width, tone, noise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.views.view_recipe import ColourJitter, HUJitter, Recipe, ViewRecipe

__all__ = ["ColourJitter", "HUJitter", "Recipe", "ViewRecipe", "ct_view", "recipe"]

logger = logging.getLogger(__name__)

_STRONG_COLOUR = ColourJitter(0.8, 0.8, 0.8, 0.8, 0.2)
_BYOL_COLOUR = ColourJitter(0.8, 0.4, 0.4, 0.2, 0.1)


def simclr_recipe(image_size: int = 224, encoder: str = "vit") -> Recipe:
    """SimCLR's two views of an RGB picture, also those of its second version.

    Source: Chen et al., arXiv 2002.05709, appendix A: colour strength 1 (0.8, 0.8, 0.8, 0.2), blur at probability 0.5
    with sigma 0.1 to 2.0, crops of 8 % to 100 %. SimCLR v2 (arXiv 2006.10029, section 2) keeps them.
    """
    view = ViewRecipe(image_size, (0.08, 1.0), jitter=_STRONG_COLOUR, grayscale=0.2, blur=0.5)
    return (view, view)


def simclr_radnet_recipe(image_size: int = 256, encoder: str = "vit") -> Recipe:
    """RadNet's two views: SimCLR's without blur, on pictures of 256 pixels.

    Source: Jonske et al., CMPB 261:108634, 2025, and its code. There one draw served a whole batch of one GPU; here
    each view draws its own.
    """
    return tuple(replace(view, blur=0.0) for view in simclr_recipe(image_size))


def moco_v2_recipe(image_size: int = 224, encoder: str = "vit") -> Recipe:
    """MoCo v2's two views of an RGB picture.

    Source: Chen et al., arXiv 2003.04297, and main_moco.py --aug-plus of facebookresearch/moco.
    """
    view = ViewRecipe(image_size, (0.2, 1.0), jitter=ColourJitter(0.8, 0.4, 0.4, 0.4, 0.1), grayscale=0.2, blur=0.5)
    return (view, view)


def moco_v3_recipe(image_size: int = 224, encoder: str = "vit") -> Recipe:
    """MoCo v3's two views, which are BYOL's: the first always blurred, the second seldom blurred but solarized.

    Args:
        image_size: side of the views.
        encoder: a ResNet's crops begin at 20 % of the picture, a ViT's at 8 %.

    Source: Chen et al., arXiv 2104.02057, and main_moco.py (--crop-min) of facebookresearch/moco-v3.
    """
    scale = (0.2 if encoder.startswith("resnet") else 0.08, 1.0)
    first = ViewRecipe(image_size, scale, jitter=_BYOL_COLOUR, grayscale=0.2, blur=1.0)
    return (first, replace(first, blur=0.1, solarize=0.2))


def barlow_twins_recipe(image_size: int = 224, encoder: str = "vit") -> Recipe:
    """Barlow Twins' two views: BYOL's, with crops of 8 % to 100 % for every encoder and bicubic interpolation.

    Source: Zbontar et al., arXiv 2103.03230, section 2.2, and main.py of facebookresearch/barlowtwins.
    """
    views = moco_v3_recipe(image_size)
    return tuple(replace(view, scale=(0.08, 1.0), interpolation="bicubic") for view in views)


def dino_recipe(image_size: int = 224, encoder: str = "vit", local_views: int = 8) -> Recipe:
    """DINO's two global and eight local views of an RGB picture.

    Args:
        image_size: side of the global views; the local views' is 3/7 of it (96 of 224), in whole patches.
        encoder: "vit..." (crops of 40 % to 100 % and 5 % to 40 %) or "resnet..." (14 % to 100 % and 5 % to 14 %).
        local_views: number of local views.

    Source: Caron et al., arXiv 2104.14294, main_dino.py and the README's ResNet-50 arguments of facebookresearch/dino.
    """
    return _multi_crop(image_size, encoder, 0.14 if encoder.startswith("resnet") else 0.4, local_views)


def dinov2_recipe(image_size: int = 224, encoder: str = "vit", local_views: int = 8) -> Recipe:
    """DINOv2's two global (32 % to 100 %) and eight local (5 % to 32 %) views; colour and blur are DINO's.

    Args:
        image_size: side of the global views; the local views' is 3/7 of it (98 of 224 for patches of 14 pixels).
        encoder: name of the encoder, for its patch size.
        local_views: number of local views.

    Source: Oquab et al., arXiv 2304.07193, configs/ssl_default_config.yaml of facebookresearch/dinov2.
    """
    return _multi_crop(image_size, encoder, 0.32, local_views)


def mae_recipe(image_size: int = 224, encoder: str = "vit") -> Recipe:
    """MAE's one view: a bicubic crop and a flip.

    Source: He et al., arXiv 2111.06377, appendix A.1, and main_pretrain.py of facebookresearch/mae.
    """
    return (ViewRecipe(image_size, (0.2, 1.0), interpolation="bicubic"),)


def _multi_crop(image_size: int, encoder: str, middle: float, local_views: int) -> Recipe:
    first = ViewRecipe(image_size, (middle, 1.0), interpolation="bicubic", jitter=_BYOL_COLOUR, grayscale=0.2, blur=1.0)
    local = replace(first, size=_local_size(image_size, encoder), scale=(0.05, middle), blur=0.5)
    return (first, replace(first, blur=0.1, solarize=0.2), *[local] * local_views)


def _local_size(image_size: int, encoder: str) -> int:
    patch = 14 if "dinov2" in encoder else 16
    return max(1, round(image_size * 96 / 224 / patch)) * patch


_RGB: dict[str, Callable[..., Recipe]] = {
    "simclr": simclr_recipe,
    "simclr_v2": simclr_recipe,
    "simclr_radnet": simclr_radnet_recipe,
    "moco_v2": moco_v2_recipe,
    "moco_v3": moco_v3_recipe,
    "barlow_twins": barlow_twins_recipe,
    "dino": dino_recipe,
    "mae": mae_recipe,
    "dinov2": dinov2_recipe,
}
_MULTI_CROP = ("dino", "dinov2")
_STRONG_CT = HUJitter(level=0.2, width=0.4)
_CT_STRENGTH = {"simclr": _STRONG_CT, "simclr_v2": _STRONG_CT, "simclr_radnet": _STRONG_CT, "mae": None}
_METHOD_NAMES = {"moco": "moco_v2", "mocov2": "moco_v2"}


def ct_view(view: ViewRecipe, jitter: HUJitter | None) -> ViewRecipe:
    """A published view with its geometry and blur kept and its colour operations replaced by HU operations.

    One view in ten is also flipped up-down: patients are scanned prone as well as supine.
    """
    return replace(view, interpolation="bilinear", jitter=jitter, grayscale=0.0, solarize=0.0, vertical_flip=0.1)


def recipe(
    method: str,
    domain: str = "ct",
    image_size: int | None = None,
    encoder: str = "vit",
    local_views: int | None = None,
) -> Recipe:
    """The views of a method.

    Args:
        method: "simclr", "simclr_v2", "simclr_radnet", "moco_v2", "moco_v3", "barlow_twins", "dino", "mae" or
            "dinov2".
        domain: "ct" or "rgb".
        image_size: side of the (global) views in pixels; by default the published one, which is 224, and 256 for
            RadNet.
        encoder: name of the encoder: crops of DINO and MoCo v3 differ between "vit..." and "resnet...", and local
            views are a whole number of patches (14 pixels where the name contains "dinov2", else 16).
        local_views: number of local views of DINO and DINOv2, the published 8 by default; other methods have none.

    Returns:
        One `ViewRecipe` per view.

    Raises:
        TrainingError: for an unknown method or domain.
    """
    name = _METHOD_NAMES.get(method, method)
    if name not in _RGB or domain not in ("ct", "rgb"):
        raise TrainingError(f"no recipe for '{method}' on '{domain}': choose {', '.join(_RGB)} and ct or rgb.")
    options = {} if image_size is None else {"image_size": image_size}
    if local_views is not None and name in _MULTI_CROP:
        options["local_views"] = local_views
    elif local_views:
        logger.warning("the views of %s have no local ones: local_views %d is left aside.", method, local_views)
    views = _RGB[name](encoder=encoder, **options)
    if domain == "ct":
        views = tuple(ct_view(view, _CT_STRENGTH.get(name, HUJitter())) for view in views)
    return views
