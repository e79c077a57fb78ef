"""Other shapes of an encoder's tensors: image and patch size, input channels, gains, registers, third dimension.

All functions take a state dict under canonical names, leave it as it is and return a new one, in its own data type.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import encoder_spec

State = dict[str, Tensor]
POSITION, CLASS_TOKEN, REGISTERS = "pos_embed", "cls_token", "reg_token"
STEMS = ("conv1.weight", "patch_embed.proj.weight")
"""The convolution that sees the image, of a ResNet and of a ViT."""
PATCHES = STEMS[1]
SCALED = (("ls1.gamma", "attn.proj."), ("ls2.gamma", "mlp.fc2."))
"""LayerScale's gains in a block and the layer whose output each one multiplies."""


def stem_of(state: Mapping[str, Tensor]) -> str:
    """The name of the convolution that sees the image.

    Raises:
        WeightsError: if there is none.
    """
    name = next((each for each in STEMS if each in state), "")
    if not name:
        raise WeightsError(f"There is no {' or '.join(STEMS)} among the weights: give a whole encoder.")
    return name


def grid_of(state: Mapping[str, Tensor]) -> int:
    """Side of the square grid of patches that a ViT's position embedding is made for.

    Raises:
        WeightsError: if the grid is no square.
    """
    patches = state[POSITION].shape[1] - _prefix(state)
    side = round(patches**0.5)
    if side**2 != patches:
        raise WeightsError(f"The position embedding is of {patches} patches, which is no square: give another encoder.")
    return side


def _prefix(state: Mapping[str, Tensor]) -> int:
    """Positions before those of the patches: the class token's, or none where there are registers (timm)."""
    return 0 if REGISTERS in state else 1


def resize_position(state: Mapping[str, Tensor], side: int) -> State:
    """Resample a ViT's position embedding to another grid; the class token's position stays.

    Source: timm's `resample_abs_pos_embed`, bicubic with antialias in float32. DINOv2 with registers resamples its own
    by the same rule. DINOv2 without them and DINO use no antialias and a grid larger by 0.1 patches (a workaround for
    rounding, dino issue 8), so that at another size than in the file their own code gives slightly other features.

    Args:
        state: canonical.
        side: patches per side of the new grid.
    """
    old = grid_of(state)
    resampled = resample_abs_pos_embed(state[POSITION], [side, side], [old, old], num_prefix_tokens=_prefix(state))
    return {**state, POSITION: resampled}


def fit_position(
    state: Mapping[str, Tensor], architecture: str, target_shape: tuple[int, ...]
) -> tuple[State, tuple[str, ...]]:
    """Resample a ViT's position embedding to the shape that a network has, where that is only another grid.

    Args:
        state: canonical.
        architecture: one of `networks.encoder_names()`.
        target_shape: of the network's position embedding, (1, prefix + patches, D); empty if it has none.

    Returns:
        The state, unchanged where nothing can or need be done, and what was done, for the report.
    """
    given = state.get(POSITION)
    if given is None or not target_shape or tuple(given.shape) == tuple(target_shape):
        return dict(state), ()
    prefix = encoder_spec(architecture).prefix_positions
    old, new = (round(max(shape[1] - prefix, 0) ** 0.5) for shape in (given.shape, target_shape))
    fits = old**2 == given.shape[1] - prefix and new**2 == target_shape[1] - prefix
    if given.shape[2] != target_shape[2] or not fits or prefix != _prefix(state):
        return dict(state), ()
    return resize_position(state, new), (f"position embedding resampled from {old} x {old} to {new} x {new} patches",)


def resize_patches(state: Mapping[str, Tensor], patch_size: int) -> State:
    """Resample a ViT's patch projection to patches of another size; the position embedding stays.

    Source: FlexiViT (Beyer et al. 2023, arXiv 2212.08013, section 3.4) by timm's `resample_patch_embed`: the new kernel
    gives, for a patch resized to it, as nearly as possible what the old one gives for the patch itself (exactly, for
    larger patches).

    Args:
        state: canonical.
        patch_size: new side in pixels.
    """
    resampled = resample_patch_embed(state[PATCHES], [patch_size, patch_size])
    return {**state, PATCHES: resampled}


def other_patches(state: Mapping[str, Tensor], patch_size: int) -> tuple[State, tuple[str, ...]]:
    """A ViT with patches of another size for images of the same size: `resize_patches` and the positions with them.

    Args:
        state: canonical.
        patch_size: new side in pixels.

    Returns:
        The state and what was done; the state as it is and nothing where no whole number of such patches fits.

    Raises:
        WeightsError: if the grid is no square.
    """
    if PATCHES not in state or POSITION not in state:
        return dict(state), ()
    side, old = grid_of(state), state[PATCHES].shape[-1]
    new, rest = divmod(side * old, patch_size)
    if rest or not new:
        return dict(state), ()
    return resize_position(resize_patches(state, patch_size), new), (
        f"patches resampled from {old} to {patch_size} pixels (FlexiViT)",
        f"position embedding resampled from {side} x {side} to {new} x {new} patches",
    )


def change_channels(state: Mapping[str, Tensor], channels: int) -> State:
    """Change the number of input channels.

    Source: timm's `adapt_input_conv`. To one channel: the sum over the old ones, so that a grey image gives what it
    gave as so many equal channels. To n: the old channels are repeated in turn, cut at n, and scaled by old / n, so
    that an input of the same size in every channel keeps the size of the output.

    Args:
        state: canonical.
        channels: of the new input.
    """
    name = stem_of(state)
    weight = state[name]
    old = weight.shape[1]
    if channels == old:
        return dict(state)
    if channels == 1:
        return {**state, name: weight.sum(dim=1, keepdim=True)}
    turns = torch.arange(channels) % old
    return {**state, name: weight[:, turns] * (old / channels)}


def swap_red_and_blue(state: Mapping[str, Tensor]) -> State:
    """Make an encoder of RGB images one of BGR images (as OpenCV reads them), or back: the stem's channels reversed.

    Raises:
        WeightsError: if the input has not three channels.
    """
    name = stem_of(state)
    if (channels := state[name].shape[1]) != 3:
        raise WeightsError(f"The encoder takes {channels} channels, not RGB: leave bgr out.")
    return {**state, name: state[name].flip(1).contiguous()}


def fold_layer_scale(state: Mapping[str, Tensor]) -> State:
    """Multiply LayerScale's gains into the layers before them; the same function without the gains.

    Source: LayerScale (Touvron et al. 2021, arXiv 2103.17239) multiplies the output of a linear layer per channel, so
    that its rows and its bias can be multiplied instead. Equal up to the rounding of the products.
    """
    folded = {name: tensor for name, tensor in state.items() if not name.endswith((".ls1.gamma", ".ls2.gamma"))}
    for name, gain in state.items():
        for gamma, layer in SCALED:
            if not name.endswith("." + gamma):
                continue
            start = name.removesuffix(gamma) + layer
            folded[start + "weight"] = state[start + "weight"] * gain[:, None]
            folded[start + "bias"] = state[start + "bias"] * gain
    return folded


def registers_from_dinov2(state: Mapping[str, Tensor]) -> State:
    """Registers as timm has them, from DINOv2's names: the class token's position is added to the token itself.

    Source: timm's filter for DINOv2, which finds these files only while `mask_token` is in them. Registers never had
    positions (Darcet et al. 2024, arXiv 2309.16588).
    """
    if not {"register_tokens", POSITION, CLASS_TOKEN} <= state.keys():
        return dict(state)
    kept = {name: tensor for name, tensor in state.items() if name != "register_tokens"}
    position = state[POSITION]
    return kept | {
        REGISTERS: state["register_tokens"],
        CLASS_TOKEN: state[CLASS_TOKEN] + position[:, :1],
        POSITION: position[:, 1:].contiguous().clone(),
    }
