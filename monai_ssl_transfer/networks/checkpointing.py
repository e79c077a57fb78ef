"""Activation checkpointing: less memory for one more forward pass, and nothing else changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from timm.models import ResNet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(encoder: Any) -> None:
    """Keep only the input of every block for the backward pass, which computes the rest again.

    Loss, gradients (stochastic depth included) and batch-norm statistics stay what they are without it.

    Args:
        encoder: a timm ResNet or ViT, changed in place; the names of its tensors stay.
    """
    if not isinstance(encoder, ResNet):
        encoder.set_grad_checkpointing(True)
        return
    # timm's own way updates the running statistics of batch norm a second time in the backward pass.
    for name in ("layer1", "layer2", "layer3", "layer4"):
        setattr(encoder, name, CheckpointedStage(*getattr(encoder, name)))


class CheckpointedStage(nn.Sequential):
    """A stage of a ResNet whose blocks are checkpointed one by one wherever there are gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """Run the blocks."""
        for block in self:
            if torch.jit.is_scripting() or not torch.is_grad_enabled():
                input = block(input)
            else:
                input = checkpointed(block, input)
        return input


@torch.jit.unused
def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block, and run it again in the backward pass."""
    return checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Those of the forward pass and of its repetition."""
    return nullcontext(), _statistics_left_alone(block)


@contextmanager
def _statistics_left_alone(block: nn.Module) -> Iterator[None]:
    """Batch norm still normalises by the batch but remembers nothing of it.

    It goes through the same motions, since as many tensors must be kept as the first time.
    """
    counting = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(module.momentum, module.num_batches_tracked) for module in counting]
    for module, (_, counter) in zip(counting, before, strict=True):
        module.momentum = 0.0
        module.num_batches_tracked = None if counter is None else counter.clone()
    try:
        yield
    finally:
        for module, (momentum, counter) in zip(counting, before, strict=True):
            module.momentum, module.num_batches_tracked = momentum, counter
