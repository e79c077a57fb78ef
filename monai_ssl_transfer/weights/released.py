"""What published checkpoints wrap their encoder in, and how to get at it.

Rules by source (names read in the public repositories and models): DINO, DINOv2, MoCo v2 and v3, MAE, Barlow Twins,
SimCLR. Names are cut at their start only, never in the middle. What is left still has to fit an encoder completely.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_ssl_transfer.weights.key_maps import HEADS, State

WRAPPERS = ("state_dict", "teacher", "model", "student")
"""Entries of a checkpoint that hold its tensors; DINO's teacher is the better one of two."""
DISTRIBUTED = "module."
ENCODERS = ("backbone.", "base_encoder.", "encoder_q.", "encoder.")
"""How the names of the encoder start beside other networks."""
UNUSED = ("decoder_", "mask_token")
"""Parts of MAE and DINOv2 on the encoder's level that have no part in an embedding."""
CHUNKED_BLOCK = re.compile(r"^blocks\.\d+\.(\d+\..+)$")
"""DINOv2's training checkpoints group blocks: `blocks.<group>.<block>.norm1.weight`."""


def encoder_in(content: Any) -> State:
    """The tensors of the encoder in a checkpoint, under the names of torchvision or timm.

    Args:
        content: what `torch.load` gave.

    Returns:
        The encoder's tensors with nothing beside them that is known to be something else; empty if there are none.
    """
    if not isinstance(content, Mapping):
        return {}
    state = next((_tensors(content[name]) for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
    if state is None:
        state = _tensors(content) if all(isinstance(value, Tensor) for value in content.values()) else {}
    state = _inside(state, DISTRIBUTED)
    for prefix in ENCODERS:
        state = _inside(state, prefix)
    state = {name: tensor for name, tensor in state.items() if not name.startswith((*HEADS, *UNUSED))}
    return _registers_renamed(_blocks_unchunked(state))


def _tensors(content: Mapping[Any, Any]) -> State:
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _inside(state: State, prefix: str) -> State:
    """What is behind a prefix, or everything where nothing has it."""
    inside = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    return inside or state


def _blocks_unchunked(state: State) -> State:
    return {CHUNKED_BLOCK.sub(r"blocks.\1", name): tensor for name, tensor in state.items()}


def _registers_renamed(state: State) -> State:
    """DINOv2 with registers as timm has it: the class token's position is added to the token itself."""
    if not {"register_tokens", "pos_embed", "cls_token"} <= state.keys():
        return state
    position = state["pos_embed"]
    renamed = {name: tensor for name, tensor in state.items() if name != "register_tokens"}
    return renamed | {
        "reg_token": state["register_tokens"],
        "cls_token": state["cls_token"] + position[:, :1],
        "pos_embed": position[:, 1:].clone(memory_format=torch.contiguous_format),
    }
