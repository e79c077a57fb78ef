"""What one random view is made of: a frozen `ViewRecipe`, with the jitter of RGB pictures or of CT slices."""

from __future__ import annotations

from dataclasses import dataclass

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
