"""Networks that are none of our encoders: how they are recognised, and what is said about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch

from monai_ssl_transfer.networks.encoders import SPECS, build_encoder
from monai_ssl_transfer.weights.transformer_names import State

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Foreign:
    """A network by the names of its tensors.

    Args:
        name: what it is.
        pattern: regular expression of a name that no encoder of ours has.
        reason: why it cannot be used, or what to do.
    """

    name: str
    pattern: str
    reason: str = "no encoder here computes that"


FOREIGN: tuple[Foreign, ...] = (
    Foreign("SAM's image encoder", r"(^|\.)rel_pos_[hw]$", "its attention knows relative positions"),
    Foreign("a CLIP ResNet", r"^(visual\.)?attnpool\.", "its stem and its pooling are others"),
    Foreign("a CLIP ViT", r"^(visual\.)?(transformer\.resblocks\.|ln_pre\.)", "it normalises before block 0"),
    Foreign("a ViT with a norm before its first block, as CLIP's", r"^norm_pre\."),
    Foreign("a ViT that normalises queries and keys", r"(^|\.)attn\.(q_norm|k_norm)\."),
    Foreign("a ViT with rotary positions", r"(^|\.)rope\."),
    Foreign(
        "a network with low-rank adapters (LoRA) that were not merged",
        r"(^|\.)(lora(_[AB]|_down|_up|_embedding_[AB])?|base_layer)\.",
        "merge them and save that: networks.adapters.merged_state(network) here, merge_and_unload() in peft",
    ),
    Foreign("a distilled DeiT of Hugging Face", r"^embeddings\.distillation_token$", "it has a second class token"),
    Foreign("a YOLOS of Hugging Face", r"^embeddings\.detection_tokens$", "it has tokens for boxes"),
    Foreign(
        "a BEiT or its like of Hugging Face",
        r"^encoder\.layer\.\d+\.(lambda_1$|attention\.attention\.relative_position_bias\.)",
    ),
    Foreign("a distilled DeiT", r"^dist_token$", "it has a second class token; take the DeiT without distillation"),
    Foreign("a BEiT", r"^blocks\.\d+\.(gamma_1|attn\.q_bias)$"),
    Foreign("a Swin Transformer", r"^(layers\.\d+\.blocks\.\d+\.|.*relative_position_bias_table$)"),
    Foreign("a ConvNeXt", r"^(downsample_layers\.|stages\.\d+\.(blocks\.)?\d+\.(dwconv|conv_dw)\.)"),
    Foreign("an EfficientNet", r"^(_conv_stem\.|conv_stem\.|features\.0\.0\.weight$)"),
    Foreign("a DenseNet", r"^(features\.)?denseblock1\."),
    Foreign("a VGG", r"^features\.0\.weight$"),
    Foreign("an EVA-02", r"^blocks\.\d+\.(attn\.q_proj\.weight|mlp\.fc1_g\.weight)$"),
    Foreign(
        "a ViT with a head on the average of its tokens, as MAE's fine-tuning leaves it",
        r"^fc_norm\.",
        "its last norm stands behind the average instead of before it; take the file that the fine-tuning began with",
    ),
    Foreign(
        "DINOv2's giant (SwiGLU feed-forward)",
        r"^blocks\.\d+\.(\d+\.)?mlp\.(w12|w3)\.",
        "its architecture is not offered; take DINOv2's small or base one",
    ),
    Foreign("a ResNet-D or another with a stem of three layers", r"^conv1\.0\.weight$"),
    Foreign("a squeeze-and-excitation ResNet", r"^layer1\.0\.se(_module)?\."),
    Foreign(
        "a MONAI ResNet with biases in its shortcuts",
        r"^layer\d\.0\.downsample\.0\.bias$",
        "torchvision's has none; MONAI builds it so with bias_downsample=False",
    ),
    Foreign(
        "a MONAI ViT with perceptron patches", r"^patch_embedding\.patch_embeddings\.\d+\.", "use proj_type='conv'"
    ),
    Foreign("a MONAI SwinUNETR", r"^swinViT\."),
)
"""The first whose pattern fits a name is meant."""

STAGES = ("layer1", "layer2", "layer3", "layer4")
RESNETS: dict[tuple[str, tuple[int, ...]], str] = {
    ("BasicBlock", (3, 4, 6, 3)): "ResNet-34",
    ("Bottleneck", (3, 4, 23, 3)): "ResNet-101",
    ("Bottleneck", (3, 8, 36, 3)): "ResNet-152",
}
PLAIN_VITS = {(spec.width, spec.depth) for spec in SPECS.values() if spec.family == "vit" and spec.patch_size == 16}
VITS = {(1024, 24): "ViT-L", (1280, 32): "ViT-H", (1408, 40): "ViT-g", (1536, 40): "ViT-g"}
WINDOWED = (
    "this is SSL4GIE's ViT detector, whose class token was deleted and whose attention was cut into windows, "
    "which no encoder here computes; take the file that its training began with"
)


def foreign_name(shapes: Shapes) -> str:
    """What a network is that is none of ours and why it cannot be used, as half a sentence; "" if it is unknown.

    Args:
        shapes: names of its tensors, without what they have in common at the start, and their shapes.
    """
    if problem := unusual(shapes):
        return problem
    return _vit(shapes) if "patch_embed.proj.weight" in shapes else ""


def unusual(shapes: Shapes) -> str:
    """What an encoder has that ours have not, though it is as large as one of ours; "" if there is nothing.

    Args:
        shapes: as for `foreign_name`.
    """
    for foreign in FOREIGN:
        named = next((name for name in shapes if re.search(foreign.pattern, name)), None)
        if named is not None:
            return f"this is {foreign.name} (it has {named}): {foreign.reason}"
    if "conv1.weight" in shapes and any(name.startswith("layer1.0.") for name in shapes):
        return _resnet(shapes)
    if "patch_embed.proj.weight" in shapes and "cls_token" not in shapes:
        return WINDOWED if "fpn.fpn1.1.weight" in shapes else "this is a ViT without class token (cls_token)"
    return ""


def _resnet(shapes: Shapes) -> str:
    """A ResNet that is not one of torchvision's 18 or 50 layers."""
    stem = shapes["conv1.weight"]
    kind = "Bottleneck" if "layer1.0.conv3.weight" in shapes else "BasicBlock"
    stages = [stage for stage in STAGES if any(name.startswith(f"{stage}.") for name in shapes)]
    if len(stem) == 5:
        return f"this is a 3-D ResNet (its stem is {stem}), ours are 2-D"
    if len(stages) == 3 or stem[2] == 3:
        widths = ", ".join(str(shapes.get(f"{stage}.0.conv1.weight", "?")[0]) for stage in stages)
        head = ", `linear.`" if "linear.weight" in shapes else ""
        return (
            f"this is a CIFAR ResNet (stem of {stem[2]} x {stem[2]} pixels with {stem[0]} channels, "
            f"stages of {widths}{head})"
        )
    middle = shapes.get("layer1.0.conv2.weight", (64, 64))
    if kind == "Bottleneck" and tuple(middle[:2]) != (64, 64):
        what = "a ResNeXt" if middle[0] != middle[1] else "a wide ResNet"
        return f"this is {what} (layer1.0.conv2.weight is {tuple(middle)})"
    depths = tuple(_count(shapes, f"{name}.") for name in stages)
    if known := RESNETS.get((kind, depths)):
        return f"this is a {known}"
    return ""


def _vit(shapes: Shapes) -> str:
    """A ViT of another size, or without what ours have."""
    stem = shapes["patch_embed.proj.weight"]
    width, side, depth = stem[0], stem[-1], _count(shapes, "blocks.")
    if len(stem) == 5:
        return f"this is a ViT for volumes (its stem is {stem}), ours are 2-D"
    size = VITS.get((width, depth), "ViT")
    registers = shapes.get("register_tokens", shapes.get("reg_token", (0, 0)))[1]
    extras = (f", {registers} registers" if registers else "") + (
        ", LayerScale" if "blocks.0.ls1.gamma" in shapes else ""
    )
    what = (
        f"this is a {size} of width {width}, {depth} blocks and patches of {side} pixels{extras}, which is not offered"
    )
    if not extras and (width, depth) in PLAIN_VITS:
        return f"{what}, but can be made one of 16 by ssl-transfer weights convert --patch_size 16"
    return what


def _count(shapes: Shapes, start: str) -> int:
    numbers = {name[len(start) :].partition(".")[0] for name in shapes if name.startswith(start)}
    return len({number for number in numbers if number.isdigit()})


@cache
def expected_shapes(architecture: str, in_channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Canonical names and shapes of an encoder, the position embedding at its own image size.

    Args:
        architecture: one of `encoder_names()`.
        in_channels: channels of the input.
    """
    with torch.device("meta"):
        encoder = build_encoder(architecture, in_channels)
    return {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}


def closest(shapes: Shapes) -> str:
    """The encoder of ours that shares most names with a file, as half a sentence; "" if none shares any.

    Args:
        shapes: names of tensors and their shapes.
    """
    shared = {name: len(expected_shapes(name).keys() & shapes.keys()) for name in SPECS}
    best = max(shared, key=lambda name: shared[name])
    if not shared[best]:
        return ""
    expected = expected_shapes(best)
    fitting = sum(expected.get(name) == shape for name, shape in shapes.items())
    return f"closest is {best}, of whose {len(expected)} tensors it has {shared[best]} by name and {fitting} by shape"


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
