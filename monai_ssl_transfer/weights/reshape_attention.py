"""Queries, keys and values in one layer or in three."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from monai_ssl_transfer.errors import WeightsError

State = dict[str, Tensor]
FUSED = re.compile(r"^(.*\.attn\.)qkv\.(weight|bias)$")
PARTS = ("q_proj", "k_proj", "v_proj")
PART = re.compile(r"^(.*\.attn\.)([qkv]_proj)\.(weight|bias)$")


def split_qkv(state: Mapping[str, Tensor]) -> State:
    """`attn.qkv` of timm as three layers `attn.q_proj`, `attn.k_proj` and `attn.v_proj` (the names of timm's EVA).

    Source: timm's ViT stacks queries, keys and values, in this order, along the output of one linear layer.

    Args:
        state: canonical; layers without bias stay without.
    """
    split: State = {}
    for name, tensor in state.items():
        found = FUSED.match(name)
        if found is None:
            split[name] = tensor
            continue
        for part, rows in zip(PARTS, tensor.chunk(3), strict=True):
            split[f"{found[1]}{part}.{found[2]}"] = rows.clone()
    return split


def fuse_qkv(state: Mapping[str, Tensor]) -> State:
    """The inverse of `split_qkv`.

    Args:
        state: with `attn.q_proj`, `attn.k_proj` and `attn.v_proj`. Where only some of the three have a bias (EVA and
            BEiT have none for keys), the others' is zero; where none has, the layer gets none.

    Raises:
        WeightsError: if one of the three weights is not there.
    """
    fused = {name: tensor for name, tensor in state.items() if PART.match(name) is None}
    for start in dict.fromkeys(found[1] for name in state if (found := PART.match(name))):
        weights = [state.get(f"{start}{part}.weight") for part in PARTS]
        present = [weight for weight in weights if weight is not None]
        if len(present) < len(PARTS):
            missing = next(part for part, weight in zip(PARTS, weights, strict=True) if weight is None)
            raise WeightsError(f"{start}{missing}.weight is missing beside its neighbours: give a whole encoder.")
        fused[start + "qkv.weight"] = torch.cat(present)
        biases = [state.get(f"{start}{part}.bias") for part in PARTS]
        if any(bias is not None for bias in biases):
            zeros = [weight.new_zeros(len(weight)) for weight in present]
            fused[start + "qkv.bias"] = torch.cat(
                [zero if bias is None else bias for bias, zero in zip(biases, zeros, strict=True)]
            )
    return fused
