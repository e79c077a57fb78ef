"""Which modules of an encoder are compiled; nothing is really compiled here, which takes long."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from monai_ssl_transfer.methods.tokens import embed_patches, through_blocks
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.networks.compiling import compile_encoder


def compiled(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if module._compiled_call_impl is not None]


def test_a_resnet_is_compiled_whole_and_a_vit_in_its_blocks() -> None:
    resnet, vit = build_encoder("resnet18"), build_encoder("vit_tiny", image_size=32)
    saving = build_encoder("vit_tiny", image_size=32, activation_checkpointing=True)
    for encoder in (resnet, vit, saving):
        names = list(encoder.state_dict())
        compile_encoder(encoder)
        assert list(encoder.state_dict()) == names
    assert compiled(resnet) == [""]
    assert compiled(vit) == ["blocks"]
    assert compiled(saving) == [f"blocks.{number}" for number in range(12)]


def noted(calls: list[str], name: str, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What stands in for a compiled module."""
    calls.append(name)
    return module._call_impl(x)


def test_methods_that_hide_tokens_run_the_compiled_blocks() -> None:
    for checkpointing in (False, True):
        vit = build_encoder("vit_tiny", image_size=32, activation_checkpointing=checkpointing).train()
        compile_encoder(vit)
        names = compiled(vit)
        calls: list[str] = []
        for name in names:
            vit.get_submodule(name)._compiled_call_impl = partial(noted, calls, name, vit.get_submodule(name))
        through_blocks(vit, embed_patches(vit, torch.zeros(1, 3, 32, 32)))
        assert calls == names
