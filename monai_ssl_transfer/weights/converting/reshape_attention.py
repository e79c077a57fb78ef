"""Queries, keys and values in one layer instead of three."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

State = dict[str, Tensor]
PARTS = ("q_proj", "k_proj", "v_proj")
PART = re.compile(r"^(.*\.attn\.)([qkv]_proj)\.(weight|bias)$")


def fuse_qkv(state: Mapping[str, Tensor]) -> State:
    """Queries, keys and values, apart in a file, as timm's one layer `attn.qkv`.

    Source: timm's ViT stacks queries, keys and values, in this order, along the output of one linear layer.

    Args:
        state: with `attn.q_proj`, `attn.k_proj` and `attn.v_proj`. Where only some of the three have a bias (EVA and
            BEiT have none for keys), the others' is zero; where none has, the layer gets none. A block without one of
            the three weights stays as it is, so that its layer is missing.
    """
    fused: State = {}
    for name, tensor in state.items():
        found = PART.match(name)
        weights = [state.get(f"{found[1]}{part}.weight") for part in PARTS] if found else []
        whole = [weight for weight in weights if weight is not None]
        if found is None or len(whole) < len(PARTS):
            fused[name] = tensor
        elif f"{found[1]}qkv.weight" not in fused:
            fused |= _fused(state, found[1], whole)
    return fused


def _fused(state: Mapping[str, Tensor], start: str, weights: list[Tensor]) -> State:
    layer = {f"{start}qkv.weight": torch.cat(weights)}
    biases = [state.get(f"{start}{part}.bias") for part in PARTS]
    if any(bias is not None for bias in biases):
        pairs = zip(weights, biases, strict=True)
        filled = [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs]
        layer[f"{start}qkv.bias"] = torch.cat(filled)
    return layer
