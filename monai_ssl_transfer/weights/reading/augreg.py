"""ViTs of Google's JAX programs (AugReg, `.npz`) under timm's names.

Layout there, read in the programs google-research/vision_transformer and big_vision: kernels are (in, out),
convolutions (height, width, in, out); query, key and value are apart and split by heads, (in, head, width of a head)
with biases (head, width), and the output projection is (head, width, out).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.errors import WeightsError

PREFIXES = ("", "opt/target/", "params/", "params/img/")
"""What names start with: in released files nothing, in training files the optimizer's target."""
PATCHES = "embedding/kernel"

FIXED = {
    "cls": "cls_token",
    "pos_embedding": "pos_embed",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    PATCHES: "patch_embed.proj.weight",
    "embedding/bias": "patch_embed.proj.bias",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/kernel": "head.weight",
    "head/bias": "head.bias",
    "pre_logits/kernel": "pre_logits.fc.weight",
    "pre_logits/bias": "pre_logits.fc.bias",
}
BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(LayerNorm|MlpBlock|MultiHeadDotProductAttention)_(\d)/(.+)")
PROJECTIONS = ("query", "key", "value")
ENDS = {"scale": "weight", "kernel": "weight", "bias": "bias"}
DAMAGE = (ValueError, OSError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive may end in."""


def read_augreg(file: Path) -> dict[str, Any]:
    """Read an `.npz` file of a ViT; no pickled object in it is opened.

    Args:
        file: a zip archive of numpy arrays.

    Returns:
        Tensors under timm's names, with the classifier (`head.`, `pre_logits.`) where the file has one; if the file
        holds more than the network: that under "optimizer", and the network under "model".

    Raises:
        WeightsError: if it is another model's, or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{file} cannot be read as numpy arrays ({reason}): copy it again from its source."
        ) from error
    prefix = next((prefix for prefix in reversed(PREFIXES) if prefix + PATCHES in arrays), None)
    if prefix is None:
        names = ", ".join(list(arrays)[:3])
        raise WeightsError(
            f"{file} holds numpy arrays but not those of a ViT from AugReg (its first: {names or 'none'}): "
            "give an AugReg file or weights of PyTorch."
        )
    network = {name[len(prefix) :]: _tensor(array) for name, array in arrays.items() if name.startswith(prefix)}
    rest = {name: _tensor(array) for name, array in arrays.items() if not name.startswith(prefix)}
    try:
        state = augreg_to_timm(network)
    except KeyError as error:
        raise WeightsError(
            f"{file} is no plain ViT of AugReg (there is no place for its {error.args[0]}): "
            "give a ViT without convolutional stem, or weights of PyTorch."
        ) from error
    return {"model": state, "optimizer": rest} if rest else state


def augreg_to_timm(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a JAX ViT under timm's names and in its layout.

    Args:
        arrays: tensors under their names in the file, without prefix.

    Returns:
        The state dict of timm's `VisionTransformer`: the values are the same, bit for bit.

    Raises:
        KeyError: naming the first tensor that has no place, or that is missing from an attention.
    """
    state: dict[str, Tensor] = {}
    for name, value in arrays.items():
        if name in FIXED:
            plain = name == "cls" or name.endswith("pos_embedding")
            state[FIXED[name]] = value if plain else _transposed(value)
            continue
        matched = BLOCK.fullmatch(name)
        if matched is None:
            raise KeyError(name)
        number, kind, order, rest = matched.groups()
        target, tensor = _in_block(kind, order, rest, name, arrays)
        state[f"blocks.{number}.{target}"] = tensor
    return state


def _in_block(kind: str, order: str, rest: str, name: str, arrays: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """Name inside of a block, and the tensor in timm's layout."""
    part, _, end = rest.rpartition("/")
    value = arrays[name]
    if end not in ENDS:
        raise KeyError(name)
    if kind == "LayerNorm" and not part:
        # the first before the attention, the other before the MLP; JAX counts all layers of a block
        return f"norm{1 if order == '0' else 2}.{ENDS[end]}", value
    if kind == "MlpBlock" and part in ("Dense_0", "Dense_1"):
        return f"mlp.fc{int(part[-1]) + 1}.{ENDS[end]}", _transposed(value)
    if kind == "MultiHeadDotProductAttention" and part == "out":
        return f"attn.proj.{ENDS[end]}", value.flatten(0, -2).T.contiguous() if end == "kernel" else value
    if kind == "MultiHeadDotProductAttention" and part in PROJECTIONS:
        stem = name[: -len(rest)]
        three = [arrays[f"{stem}{projection}/{end}"] for projection in PROJECTIONS]
        if end == "kernel":
            return "attn.qkv.weight", torch.cat([kernel.flatten(1).T for kernel in three])
        return "attn.qkv.bias", torch.cat([bias.flatten() for bias in three])
    raise KeyError(name)


def _transposed(value: Tensor) -> Tensor:
    """From (..., in, out) to (out, in, ...); vectors stay."""
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1).contiguous()
    return value.T.contiguous() if value.ndim == 2 else value


def _tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor; numpy has no bfloat16, which comes as two bytes of unknown type."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(np.ascontiguousarray(array))
