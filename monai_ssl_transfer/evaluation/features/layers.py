"""Activations of an encoder, layer by layer, as inner products between images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from monai_ssl_transfer.evaluation.features.cka import centred_gram

EMBEDDING = "embedding"


def tapped_layers(encoder: nn.Module) -> dict[str, nn.Module]:
    """Layers whose output is compared: the stem and every block, by name from the input to the output.

    Args:
        encoder: of `networks.build_encoder`: a ResNet (stem after its activation, residual blocks) or a ViT (patches
            with their positions, transformer blocks; all tokens count).
    """
    model: Any = encoder
    if hasattr(model, "blocks"):
        # norm_pre is what the tokens pass after their positions were added; it is the identity in these ViTs.
        return {"patches": model.norm_pre} | {f"block {i + 1}": block for i, block in enumerate(model.blocks)}
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    named = {f"stage {i + 1} block {j + 1}": block for i, stage in enumerate(stages) for j, block in enumerate(stage)}
    return {"stem": model.act1} | named


@contextmanager
def layer_grams(encoder: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect `centred_gram` of every tapped layer in the forward passes within; the last pass counts.

    Activations are whole (every position of a feature map, every token), and forgotten as soon as their inner products
    are known.

    Args:
        encoder: of `networks.build_encoder`; its output is the last layer, "embedding".

    Yields:
        (N, N) float64 by layer, from the input to the output.
    """
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Tensor) -> None:
            found[name] = centred_gram(output)

        return keep

    taps = {**tapped_layers(encoder), EMBEDDING: encoder}
    handles = [module.register_forward_hook(hook(name)) for name, module in taps.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
