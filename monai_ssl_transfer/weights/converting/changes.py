"""Changes of an encoder's shape together with its card: what was done, and what that means for the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import SPECS
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.converting import reshape
from monai_ssl_transfer.weights.converting.reshape import POSITION, State
from monai_ssl_transfer.weights.converting.reshape_volume import inflate
from monai_ssl_transfer.weights.input_channels import BGR

GAIN = "blocks.0.ls1.gamma"


@dataclass(frozen=True)
class ConvertOptions:
    """Changes of shape on the way.

    Args:
        in_channels: channels of the new input, None for those of the file; see `reshape.change_channels`.
        bgr: make an encoder of RGB images one of BGR images, or one of BGR images one of RGB images again.
        image_size: side in pixels that a ViT's position embedding is resampled to, None for that of the file.
        patch_size: side in pixels that a ViT's patches are resampled to, None for that of the file.
        fold_layer_scale: multiply LayerScale's gains into the layers before them; done anyway where the target has
            no LayerScale.
        spatial_dims: 2, or 3 to inflate (`reshape_volume.inflate`); a ViT's image is then a cube.
    """

    in_channels: int | None = None
    bgr: bool = False
    image_size: int | None = None
    patch_size: int | None = None
    fold_layer_scale: bool = False
    spatial_dims: int = 2

    def check(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            WeightsError: for sizes and channels that are no whole numbers from 1, and dimensions other than 2 and 3.
        """
        for name in ("in_channels", "image_size", "patch_size"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise WeightsError(f"{name} {value!r} is no positive whole number: give at least 1, or leave it out.")
        if self.spatial_dims not in (2, 3):
            raise WeightsError(f"spatial_dims {self.spatial_dims} is neither 2 nor 3: give one of them.")


def change_shape(
    state: Mapping[str, Tensor], card: EncoderCard, options: ConvertOptions, *, gains: bool = True
) -> tuple[State, EncoderCard, list[str]]:
    """Apply the options to an encoder and to its card.

    Args:
        state: canonical.
        card: of the encoder.
        options: what to do.
        gains: whether LayerScale may stay.

    Returns:
        The new state and card (its architecture is still that of the file), and a line for everything that was done.

    Raises:
        WeightsError: if an option does not fit the encoder.
    """
    changed, done = dict(state), []
    for step in (_bgr, _channels, _patches, _position):
        changed, card, line = step(changed, card, options)
        done += line
    if options.fold_layer_scale and GAIN not in changed:
        raise WeightsError(f"{card.architecture} has no LayerScale: leave fold_layer_scale out.")
    if GAIN in changed and (options.fold_layer_scale or not gains):
        changed = reshape.fold_layer_scale(changed)
        done.append("LayerScale's gains multiplied into the layers before them")
    if options.spatial_dims == 3:
        changed = inflate(changed)
        done.append("inflated to 3-D: kernels and positions repeated along the last dimension (I3D)")
    return changed, card, done


Step = tuple[State, EncoderCard, list[str]]


def _bgr(state: State, card: EncoderCard, options: ConvertOptions) -> Step:
    if not options.bgr:
        return state, card, []
    if card.windows:
        raise WeightsError(f"The encoder's channels are {card.channels} of CT, not RGB: leave bgr out.")
    back = card.channels == BGR
    swapped = replace(card, channels="rgb" if back else BGR, mean=card.mean[::-1], std=card.std[::-1])
    order = "RGB instead of BGR" if back else "BGR instead of RGB"
    return reshape.swap_red_and_blue(state), swapped, [f"input channels reversed: {order}"]


def _channels(state: State, card: EncoderCard, options: ConvertOptions) -> Step:
    old, new = card.in_channels, options.in_channels
    if new is None or new == old:
        return state, card, []
    rule = "their sum" if new == 1 else f"repeated in turn and scaled by {old}/{new}"
    card = replace(
        card,
        in_channels=new,
        channels="",
        windows=(),
        mean=_for_channels(card.mean, new),
        std=_for_channels(card.std, new),
    )
    return reshape.change_channels(state, new), card, [f"{old} input channels to {new}: {rule}"]


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Mean or std of the new channels: of the one they were repeated from, or the average of those in a sum."""
    if channels == 1 and values:
        return (sum(values) / len(values),)
    return tuple(values[number % len(values)] for number in range(channels)) if values else ()


def _patches(state: State, card: EncoderCard, options: ConvertOptions) -> Step:
    size = options.patch_size
    if POSITION not in state:
        if size is not None:
            raise WeightsError(f"{card.architecture} has no patches: leave patch_size out.")
        return state, card, []
    old = SPECS[card.architecture].patch_size
    if size is None or size == old:
        return state, card, []
    return reshape.resize_patches(state, size), card, [f"patches resampled from {old} to {size} pixels (FlexiViT)"]


def _position(state: State, card: EncoderCard, options: ConvertOptions) -> Step:
    """Fit the position embedding to the image and the patches; the image is as in the file unless another is asked."""
    if POSITION not in state:
        if options.image_size is not None:
            raise WeightsError(f"{card.architecture} takes images of any size: leave image_size out.")
        return state, card, []
    patch, old = state[reshape.PATCHES].shape[-1], reshape.grid_of(state)
    size = options.image_size or old * SPECS[card.architecture].patch_size
    if size % patch:
        raise WeightsError(
            f"An image of {size} pixels is not a multiple of the patches' {patch}: "
            f"give image_size {max(1, round(size / patch)) * patch}."
        )
    card, new = replace(card, image_size=size), size // patch
    if new == old:
        return state, card, []
    done = f"position embedding resampled from {old} x {old} to {new} x {new} patches"
    return reshape.resize_position(state, new), card, [done]


def noted(method: dict[str, Any], done: Iterable[str]) -> dict[str, Any]:
    """The method of a card with what was done to the encoder afterwards, under "conversion"."""
    lines = [*method.get("conversion", ()), *done]
    return method | {"conversion": lines} if lines else method
