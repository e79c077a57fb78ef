"""The tensors of a ViT under the names of MONAI, torchvision and Hugging Face, and back.

Source of the tables: the networks of MONAI 1.6 and torchvision 0.29; forward equality is tested. MONAI has no place for
the class token's position, which is added to the token itself; going back it stays there and the position is zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from monai_ssl_transfer.networks.classification import MONAI_UNUSED
from monai_ssl_transfer.weights.converting.reshape_attention import fuse_qkv

State = dict[str, Tensor]
Table = tuple[tuple[str, str], ...]
MONAI_STEM = "patch_embedding.patch_embeddings.weight"
MONAI_POSITION = "patch_embedding.position_embeddings"
MONAI: Table = (
    ("patch_embed.proj.", "patch_embedding.patch_embeddings."),
    ("attn.proj.", "attn.out_proj."),
    ("mlp.fc1.", "mlp.linear1."),
    ("mlp.fc2.", "mlp.linear2."),
)
TORCHVISION_STEM = "conv_proj.weight"
TORCHVISION: Table = (
    ("cls_token", "class_token"),
    ("pos_embed", "encoder.pos_embedding"),
    ("patch_embed.proj.", "conv_proj."),
    ("norm.", "encoder.ln."),
    ("norm1.", "ln_1."),
    ("norm2.", "ln_2."),
    ("attn.qkv.weight", "self_attention.in_proj_weight"),
    ("attn.qkv.bias", "self_attention.in_proj_bias"),
    ("attn.proj.", "self_attention.out_proj."),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.3."),
)
HUGGING_FACE_STEM = "embeddings.patch_embeddings.projection.weight"
HUGGING_FACE: Table = (
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("register_tokens", "embeddings.register_tokens"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("norm.", "layernorm."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
    ("attn.q_proj.", "attention.attention.query."),
    ("attn.k_proj.", "attention.attention.key."),
    ("attn.v_proj.", "attention.attention.value."),
    ("attn.proj.", "attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
)
"""Of its ViT and of its DINOv2, which already has timm's norm1, norm2, mlp.fc1 and mlp.fc2."""
HUGGING_FACE_BLOCK = "encoder.layer."
CANONICAL_BLOCK, TORCHVISION_BLOCK = "blocks.", "encoder.layers.encoder_layer_"
NORM = re.compile(r"^norm\.(weight|bias)$")
LAST_OF_BLOCKS = re.compile(r"^blocks\.(\d+)\.(weight|bias)$")
"""The final norm of MONAI's masked autoencoder, which is the last entry of its blocks."""


def monai_vit_names(state: Mapping[str, Tensor], *, class_token: bool = True) -> State:
    """Canonical tensors under the names of MONAI's ViT.

    Args:
        state: canonical, without LayerScale and registers, which MONAI's ViT does not have.
        class_token: False for a ViT without one, as in UNETR (`network.vit`). It is then left out: the patch tokens
            attend to each other alone, which is **not** the function that was pretrained, only a start near it.
    """
    renamed = {_renamed(name, MONAI): tensor for name, tensor in state.items()}
    if "pos_embed" in renamed and "cls_token" in renamed:
        position = renamed.pop("pos_embed")
        renamed["cls_token"] = renamed["cls_token"] + position[:, :1]
        renamed[MONAI_POSITION] = position[:, 1:].clone()
    if not class_token:
        renamed.pop("cls_token", None)
    return renamed


def from_monai_vit(state: Mapping[str, Tensor]) -> State:
    """The inverse of `monai_vit_names`."""
    renamed = {
        _renamed(name, _back(MONAI)): tensor
        for name, tensor in state.items()
        if MONAI_UNUSED not in name and not name.startswith("classification_head.")
    }
    position = renamed.pop(MONAI_POSITION, None)
    if position is not None and "cls_token" in renamed:
        renamed["pos_embed"] = torch.cat([torch.zeros_like(renamed["cls_token"]), position], dim=1)
    return renamed


def monai_mae_names(state: Mapping[str, Tensor]) -> State:
    """Canonical tensors under the names of the encoder in MONAI's MaskedAutoEncoderViT.

    They are those of its ViT, but the final norm is one more block.

    Args:
        state: canonical, as for `monai_vit_names`.
    """
    depth = len({name.split(".")[1] for name in state if name.startswith(CANONICAL_BLOCK)})
    return {NORM.sub(rf"blocks.{depth}.\1", name): tensor for name, tensor in monai_vit_names(state).items()}


def from_monai_mae(state: Mapping[str, Tensor]) -> State:
    """The inverse of `monai_mae_names`; the decoder's tensors are left out."""
    encoder = {name: each for name, each in state.items() if not name.startswith(("decoder_", "mask_token"))}
    return from_monai_vit({LAST_OF_BLOCKS.sub(r"norm.\2", name): tensor for name, tensor in encoder.items()})


def torchvision_vit_names(state: Mapping[str, Tensor]) -> State:
    """Canonical tensors under the names of torchvision's VisionTransformer.

    Args:
        state: canonical, without LayerScale and registers, which torchvision's ViT does not have.
    """
    return {_renamed(name, TORCHVISION, CANONICAL_BLOCK, TORCHVISION_BLOCK): each for name, each in state.items()}


def from_torchvision_vit(state: Mapping[str, Tensor]) -> State:
    """The inverse of `torchvision_vit_names`; the heads are left out."""
    return {
        _renamed(name, _back(TORCHVISION), TORCHVISION_BLOCK, CANONICAL_BLOCK): tensor
        for name, tensor in state.items()
        if not name.startswith("heads.")
    }


def from_hugging_face(state: Mapping[str, Tensor]) -> State:
    """A ViT or DINOv2 of Hugging Face's transformers under canonical names; queries, keys and values become one layer.

    Source of the names: its `modeling_vit`, `modeling_dinov2` and scripts of conversion from timm and DINOv2.
    """
    back, apart = _back(HUGGING_FACE), re.compile(r"(attention\.attention\.)(query|key|value)\.")
    named: State = {}
    for name, tensor in state.items():
        siblings = {apart.sub(rf"\1{part}.", name) for part in ("query", "key", "value")}
        # a part of a layer keeps its name, so that the layer is missing and no zeros take its place
        whole = siblings <= state.keys() or not apart.search(name)
        named[_renamed(name, back, HUGGING_FACE_BLOCK, CANONICAL_BLOCK) if whole else name] = tensor
    return fuse_qkv(named)


def _back(table: Table) -> Table:
    return tuple((new, old) for old, new in table)


def _renamed(name: str, table: Table, block: str = CANONICAL_BLOCK, new_block: str = CANONICAL_BLOCK) -> str:
    """Rename what follows `<block><number>.` or, outside of the blocks, the start of a name."""
    number, dot, rest = name.removeprefix(block).partition(".") if name.startswith(block) else ("", "", name)
    start = f"{new_block}{number}{dot}" if number else ""
    for old, new in table:
        if rest.startswith(old):
            return start + new + rest[len(old) :]
    return start + rest
