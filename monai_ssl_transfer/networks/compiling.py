"""torch.compile for encoders, in the places that all methods run through."""

from __future__ import annotations

from typing import Any


def compile_encoder(encoder: Any) -> None:
    """Compile an encoder in place; the names in its state dict stay as they are.

    Of a ViT it is the blocks, where the time goes: methods that hide or drop tokens (MAE, DINOv2) never call the
    encoder itself (`methods.tokens`), and with activation checkpointing the blocks are called one by one.

    Args:
        encoder: an encoder of `build_encoder`.
    """
    blocks = getattr(encoder, "blocks", None)
    if blocks is None:
        encoder.compile()
    elif encoder.grad_checkpointing:
        for block in blocks:
            block.compile()
    else:
        blocks.compile()
