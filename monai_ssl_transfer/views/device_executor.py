"""Views of a whole batch at once in torch: the executor for CUDA, and what the CPU executor must match."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD
from monai_ssl_transfer.views import colour, intensity
from monai_ssl_transfer.views.parameters import ViewParameters
from monai_ssl_transfer.views.recipes import ViewRecipe
from monai_ssl_transfer.views.resampling import crop_resize
from monai_ssl_transfer.views.windows import HUWindow


def make_views(
    image: Tensor, recipe: Sequence[ViewRecipe], parameters: Sequence[ViewParameters], windows: tuple[HUWindow, ...]
) -> list[Tensor]:
    """All views of a batch on its device.

    Args:
        image: (B, C, H, W) int16 HU or uint8 RGB.
        recipe: one entry per view.
        parameters: drawn parameters, one entry per view.
        windows: HU windows of the output channels; empty for RGB.

    Returns:
        One float32 (B, C, S, S) per view.
    """
    if windows:
        return [ct_view(image, v, p, windows) for v, p in zip(recipe, parameters, strict=True)]
    return [rgb_view(image, v, p) for v, p in zip(recipe, parameters, strict=True)]


def ct_view(image: Tensor, view: ViewRecipe, parameters: ViewParameters, windows: tuple[HUWindow, ...]) -> Tensor:
    """One CT view of a batch: crop, flip, resize, blur, noise (all in HU), then windows, tone and normalisation.

    Args:
        image: (B, 1 or 3, H, W) int16 HU.
        view: recipe of the view.
        parameters: drawn parameters of the view.
        windows: HU windows of the output channels.

    Returns:
        (B, C, S, S) float32.
    """
    hu = crop_resize(image, parameters, view.size, view.interpolation)
    hu = intensity.add_noise(intensity.blur(hu, parameters.sigma), parameters)
    return intensity.window_and_normalise(hu, windows, parameters)


def rgb_view(image: Tensor, view: ViewRecipe, parameters: ViewParameters) -> Tensor:
    """One RGB view of a batch: crop, flip, resize, colour jitter, grey, blur, solarize, ImageNet normalisation.

    Args:
        image: (B, 3, H, W) uint8.
        view: recipe of the view.
        parameters: drawn parameters of the view.

    Returns:
        (B, 3, S, S) float32.
    """
    result = (crop_resize(image, parameters, view.size, view.interpolation) / 255).clamp_(0, 1)
    result = colour.make_grey(colour.jitter_colour(result, parameters), parameters)
    result = colour.solarize(intensity.blur(result, parameters.sigma), parameters)
    return intensity.normalise(result, IMAGENET_MEAN, IMAGENET_STD)
