"""Recipes of views as data: one frozen `ViewRecipe` per view, with the published values.

RGB recipes are the published ones. CT recipes keep the published geometry (crop scales, sizes, number of views, blur
probabilities) and replace colour by what varies between CT examinations: window level and width, tone, noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from monai_ssl_transfer.errors import TrainingError


@dataclass(frozen=True)
class ColourJitter:
    """Random colour of an RGB view, as torchvision's ColorJitter: four operations in random order, clamped after each.

    Args:
        probability: share of views that are jittered.
        brightness: factor from [1 - x, 1 + x].
        contrast: factor from [1 - x, 1 + x], around the mean grey of the view.
        saturation: factor from [1 - x, 1 + x], around the grey picture.
        hue: shift from [-x, x] turns of the HSV colour circle.
    """

    probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1


@dataclass(frozen=True)
class HUJitter:
    """Random look of a CT view; each window (network channel) draws its own level, width and tone.

    A change of a window's width is a change of contrast around its centre, a change of its level one of brightness.

    Args:
        probability: share of views with a random window.
        level: shift of the level, from [-x, x] times the window's width.
        width: factor of the width, from [1 - x, 1 + x].
        gamma_probability: share of views with a random tone curve.
        gamma: range of gamma, log-uniform. The tone curve is x / (x + (1 - x) k) with k = 2**gamma - 1: it meets the
            power law x**gamma at 0, 1/2 and 1 but stays finitely steep at 0, where air would turn into noise.
        noise_probability: share of views with added Gaussian noise.
        noise: range of the noise's standard deviation in HU, at the resolution of the view.
    """

    probability: float = 0.8
    level: float = 0.15
    width: float = 0.3
    gamma_probability: float = 0.5
    gamma: tuple[float, float] = (0.7, 1.5)
    noise_probability: float = 0.5
    noise: tuple[float, float] = (2.0, 30.0)


@dataclass(frozen=True)
class ViewRecipe:
    """How one view of a sample is drawn.

    Args:
        size: side of the square view in pixels.
        scale: range of the crop's area as a fraction of the image.
        ratio: range of the crop's width over height, log-uniform.
        interpolation: "bilinear" or "bicubic", antialiased in both.
        flip: probability of a left-right flip.
        vertical_flip: probability of an up-down flip.
        jitter: `ColourJitter` for RGB, `HUJitter` for CT, or None.
        grayscale: probability of a grey picture (RGB only).
        blur: probability of a Gaussian blur.
        blur_sigma: range of the blur's standard deviation in pixels of the view.
        solarize: probability of solarization at 128/255 (RGB only).
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    flip: float = 0.5
    vertical_flip: float = 0.0
    jitter: ColourJitter | HUJitter | None = None
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1 or self.interpolation not in ("bilinear", "bicubic"):
            raise TrainingError(
                f"a view recipe needs a positive size and bilinear or bicubic interpolation, got {self.size} and "
                f"'{self.interpolation}'."
            )
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise TrainingError(f"crop scale {self.scale} or ratio {self.ratio} is not a range: give (low, high).")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise TrainingError(f"blur_sigma {self.blur_sigma} is not a positive range in pixels: give (low, high).")


Recipe = tuple[ViewRecipe, ...]


def simclr_recipe(image_size: int = 224) -> Recipe:
    """SimCLR's two views of an RGB picture.

    Source: Chen et al., arXiv 2002.05709, appendix A: colour strength 1 (0.8, 0.8, 0.8, 0.2), blur at probability 0.5
    with sigma 0.1 to 2.0, crops of 8 % to 100 %.
    """
    view = ViewRecipe(image_size, (0.08, 1.0), jitter=ColourJitter(0.8, 0.8, 0.8, 0.8, 0.2), grayscale=0.2, blur=0.5)
    return (view, view)


def moco_v2_recipe(image_size: int = 224) -> Recipe:
    """MoCo v2's two views of an RGB picture.

    Source: Chen et al., arXiv 2003.04297, and main_moco.py --aug-plus of facebookresearch/moco.
    """
    view = ViewRecipe(image_size, (0.2, 1.0), jitter=ColourJitter(0.8, 0.4, 0.4, 0.4, 0.1), grayscale=0.2, blur=0.5)
    return (view, view)


def dino_recipe(image_size: int = 224, encoder: str = "vit", local_views: int = 8) -> Recipe:
    """DINO's two global and eight local views of an RGB picture.

    Args:
        image_size: side of the global views; the local views' is 3/7 of it (96 of 224), rounded to 16 pixels.
        encoder: "vit" (crops of 40 % to 100 % and 5 % to 40 %) or "resnet" (14 % to 100 % and 5 % to 14 %).
        local_views: number of local views.

    Source: Caron et al., arXiv 2104.14294, main_dino.py and the README's ResNet-50 arguments of facebookresearch/dino.
    """
    middle = 0.14 if encoder.startswith("resnet") else 0.4
    base = ViewRecipe(
        image_size,
        (middle, 1.0),
        interpolation="bicubic",
        jitter=ColourJitter(0.8, 0.4, 0.4, 0.2, 0.1),
        grayscale=0.2,
        blur=1.0,
    )
    local = replace(base, size=_local_size(image_size), scale=(0.05, middle), blur=0.5)
    return (base, replace(base, blur=0.1, solarize=0.2), *[local] * local_views)


def _local_size(image_size: int) -> int:
    return max(16, round(image_size * 96 / 224 / 16) * 16)


_RGB: dict[str, Callable[..., Recipe]] = {"simclr": simclr_recipe, "moco_v2": moco_v2_recipe, "dino": dino_recipe}
_CT_STRENGTH = {
    "simclr": HUJitter(level=0.2, width=0.4),
    "moco_v2": HUJitter(level=0.15, width=0.3),
    "dino": HUJitter(level=0.15, width=0.3),
}
_METHOD_NAMES = {"moco": "moco_v2", "mocov2": "moco_v2"}


def ct_view(view: ViewRecipe, jitter: HUJitter) -> ViewRecipe:
    """A published view with its geometry and blur kept and its colour operations replaced by HU operations.

    One view in ten is also flipped up-down: patients are scanned prone as well as supine.
    """
    return replace(view, interpolation="bilinear", jitter=jitter, grayscale=0.0, solarize=0.0, vertical_flip=0.1)


def recipe(method: str, domain: str = "ct", image_size: int | None = None, encoder: str = "vit") -> Recipe:
    """The views of a method.

    Args:
        method: "simclr", "moco_v2" or "dino".
        domain: "ct" or "rgb".
        image_size: side of the (global) views in pixels, 224 by default.
        encoder: name of the encoder; DINO crops differ between "vit..." and "resnet...".

    Returns:
        One `ViewRecipe` per view.

    Raises:
        TrainingError: for an unknown method or domain.
    """
    name = _METHOD_NAMES.get(method, method)
    if name not in _RGB or domain not in ("ct", "rgb"):
        raise TrainingError(f"no recipe for '{method}' on '{domain}': choose {', '.join(_RGB)} and ct or rgb.")
    size = 224 if image_size is None else image_size
    views = _RGB[name](size, encoder) if name == "dino" else _RGB[name](size)
    if domain == "ct":
        views = tuple(ct_view(view, _CT_STRENGTH[name]) for view in views)
    return views
