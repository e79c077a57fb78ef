"""From the names that an encoder has in some file to the canonical ones, torchvision's (ResNet) and timm's (ViT)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from monai_ssl_transfer.weights.converting.reshape import registers_from_dinov2
from monai_ssl_transfer.weights.transformer_names import (
    HUGGING_FACE_BLOCK,
    HUGGING_FACE_STEM,
    MONAI_POSITION,
    MONAI_STEM,
    TORCHVISION_STEM,
    State,
    from_hugging_face,
    from_monai_mae,
    from_monai_vit,
    from_torchvision_vit,
)

STEMS = {
    "conv1.weight": "layer1.0.",
    "0.weight": "4.0.conv1.",
    "patch_embed.proj.weight": "blocks.",
    MONAI_STEM: "blocks.",
    TORCHVISION_STEM: "encoder.layers.",
    HUGGING_FACE_STEM: HUGGING_FACE_BLOCK,
}
"""First layers of the encoders that are known, and how a name must start that lies beside each of them."""
NUMBERED_RESNET = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""`nn.Sequential(*list(resnet.children())[:-1])`, lightly's way to cut the head off: 2 and 3 hold no tensors."""
CHUNKED_BLOCK = re.compile(r"^blocks\.\d+\.(\d+\..+)$")
"""DINOv2's training checkpoints group blocks: `blocks.<group>.<block>.norm1.weight`."""
MONAI_MAE_PART = re.compile(r"^(decoder_|mask_tokens$|blocks\.\d+\.(weight|bias)$)")
DERIVED = {"pos_embed": MONAI_POSITION}
"""Canonical tensors that are computed from one of another name; the class token keeps its own."""
CLASS_POSITION = "MONAI's class token holds its position already, so that the class token's own position is zero"
REGISTERS = "the class token's position was added to the class token, as timm has it beside registers"
HUGGING_FACE_EPS = (
    "Hugging Face's ViT has LayerNorm eps 1e-12 unless its config.json says otherwise, this encoder, as the authors' "
    "own, 1e-6"
)
HUGGING_FACE_PARTS = (("attn.qkv.", "attention.attention.{query,key,value}."), ("cls_token", "embeddings.cls_token"))
"""Canonical tensors that are made of others, and what those are called."""
CHUNKS = "blocks that training with FSDP had grouped were numbered through"


def encoder_starts(names: Iterable[str]) -> list[str]:
    """Every start of names behind which an encoder may lie, "" for the level of the names themselves.

    Args:
        names: names of tensors.
    """
    names = tuple(names)
    starts = []
    for name in names:
        for stem, beside in STEMS.items():
            start = name[: len(name) - len(stem)]
            inside = name.endswith(stem) and start[-1:] in ("", ".")
            if inside and any(other.startswith(start + beside) for other in names):
                starts.append(start)
    return starts


def to_canonical(state: State) -> tuple[State, dict[str, str], tuple[str, ...]]:
    """Rename an encoder's tensors.

    Args:
        state: an encoder's tensors without what their names have in common at the start, and without heads.

    Returns:
        The tensors under canonical names; what each of them was called; sentences on what was done besides renaming.
    """
    named, notes = _renamed(state)
    origin = {id(tensor): name for name, tensor in state.items()}
    names = {
        name: origin.get(id(tensor), name if name in state else _derived(name, state)) for name, tensor in named.items()
    }
    return named, names, notes


def _derived(name: str, state: State) -> str:
    """What a tensor that was computed is called in the file."""
    if HUGGING_FACE_STEM not in state:
        return DERIVED.get(name, name)
    if name == "pos_embed":
        return "embeddings.position_embeddings"
    for canonical, given in HUGGING_FACE_PARTS:
        name = name.replace(canonical, given)
    return name.replace("blocks.", HUGGING_FACE_BLOCK)


def _renamed(state: State) -> tuple[State, tuple[str, ...]]:
    if "0.weight" in state and "4.0.conv1.weight" in state:
        return {_numbered(name): tensor for name, tensor in state.items()}, ()
    if TORCHVISION_STEM in state:
        return from_torchvision_vit(state), ()
    if MONAI_STEM in state:
        mae = any(MONAI_MAE_PART.match(name) for name in state)
        return (from_monai_mae if mae else from_monai_vit)(state), (CLASS_POSITION,)
    if HUGGING_FACE_STEM in state:
        named, notes = _timm_names(from_hugging_face(state))
        return named, notes if "blocks.0.ls1.gamma" in named else (*notes, HUGGING_FACE_EPS)
    return _timm_names(state)


def _timm_names(state: State) -> tuple[State, tuple[str, ...]]:
    chunked = any(CHUNKED_BLOCK.match(name) for name in state)
    if chunked:
        state = {CHUNKED_BLOCK.sub(r"blocks.\1", name): tensor for name, tensor in state.items()}
    notes = (CHUNKS,) if chunked else ()
    if {"register_tokens", "pos_embed", "cls_token"} <= state.keys():
        return registers_from_dinov2(state), (*notes, REGISTERS)
    return dict(state), notes


def _numbered(name: str) -> str:
    first, dot, rest = name.partition(".")
    return NUMBERED_RESNET.get(first, first) + dot + rest
