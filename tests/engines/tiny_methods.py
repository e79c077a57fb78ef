"""Every method of the package on an encoder of a few hundred weights, and a run of it that takes a second.

Whoever adds a method adds it to ``METHODS``; a test fails until that is done.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from timm.models.vision_transformer import VisionTransformer
from tiny_run import TinyStore
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, slice_loader
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer, StepOptions
from monai_ssl_transfer.methods import (
    DINO,
    MAE,
    BarlowTwins,
    BlockMasking,
    DINOHeadOptions,
    DINOSchedule,
    DINOv2,
    MAEDecoderOptions,
    MoCoV2,
    MoCoV3,
    SimCLR,
    SSLMethod,
)
from monai_ssl_transfer.views.random import uniform

BATCH = 8
STEPS = 5


class TinyCNN(nn.Module):
    """Two convolutions with batch norm, 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 8
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).relu().mean((2, 3))


def tiny_vit() -> VisionTransformer:
    vit = VisionTransformer(
        12, 4, 1, num_classes=0, embed_dim=16, depth=1, num_heads=2, mlp_ratio=2, dynamic_img_size=True
    )
    spread(vit)
    return vit


def spread(vit: nn.Module) -> None:
    """Draw large weights: as they come, class tokens of all images are equal but for rounding."""
    for layer in vit.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.3)


def moco_v3_vit() -> MoCoV3:
    """MoCo v3, which draws a ViT's weights anew, on one with large weights."""
    method = MoCoV3(tiny_vit(), 0.2, 0.9, 16, 8)
    spread(method.encoder)
    method.momentum_encoder.load_state_dict(method.encoder.state_dict())
    return method


_DINO = {
    "prototypes": 24,
    "schedule": DINOSchedule(momentum=0.9, freeze_last_layer=0.1),
    "head": DINOHeadOptions(16, 8, batch_norm=True),
}

METHODS: dict[str, tuple[Callable[[], SSLMethod], tuple[int, ...]]] = {
    "simclr": (lambda: SimCLR(TinyCNN(), 16, 8), (12, 12)),
    "moco_v2": (lambda: MoCoV2(TinyCNN(), 20, 0.9, 0.2, 16, 8, 2), (12, 12)),
    "moco_v3": (lambda: MoCoV3(TinyCNN(), 1.0, 0.9, 16, 8), (12, 12)),
    "moco_v3_vit": (moco_v3_vit, (12, 12)),
    "barlow_twins": (lambda: BarlowTwins(TinyCNN(), 16, 8), (12, 12)),
    "dino": (lambda: DINO(TinyCNN(), **_DINO), (12, 12, 8)),
    "dino_vit": (lambda: DINO(tiny_vit(), **_DINO), (12, 12, 8)),
    "mae": (lambda: MAE(tiny_vit(), decoder=MAEDecoderOptions(16, 1, 2)), (12,)),
    "dinov2": (
        lambda: DINOv2(tiny_vit(), **_DINO, patch_prototypes=16, masking=BlockMasking(smallest_block=1)),
        (12, 12, 8),
    ),
}
"""Builders and the sizes of their views; MoCo v2 on one process has a batch-norm group for each of two processes."""
WHOLE: dict[str, tuple[Callable[[], SSLMethod], tuple[int, ...]]] = {
    "dinov2_sinkhorn": (
        lambda: DINOv2(tiny_vit(), **_DINO, masking=BlockMasking(smallest_block=1), centring="sinkhorn_knopp"),
        (12, 12, 8),
    ),
}
"""Those whose batches cannot go through in pieces."""


class NoisyViews(nn.Module):
    """Corners of the image with noise that depends on seed, epoch, sample and view alone."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, image: Tensor, size: Tensor, sample: Tensor, epoch: int) -> list[Tensor]:
        views = []
        for number, side in enumerate(self.sizes):
            noise = uniform(0, epoch, sample, number, side * side).view(-1, 1, side, side)
            views.append(image[:, :, :side, :side].float() / 1000 + noise)
        return views


def without_batch_norm(network: nn.Module) -> None:
    """Take all batch norms out, so that nothing in a network looks at more than one image."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, nn.Identity())


def run(
    name: str,
    batch_norm: bool = True,
    options: StepOptions | None = None,
    change: Callable[[SSLMethod], None] = lambda method: None,
    epochs: int = 1,
    handlers: tuple[Any, ...] = (),
) -> dict[str, Any]:
    """Train a method for some steps on this process's part of each batch.

    Returns:
        "before" and "after" (state dicts), "losses" (one per step), "keys" (this process's images, per step).
    """
    torch.manual_seed(0)
    build, sizes = (METHODS | WHOLE)[name]
    method = build()
    if not batch_norm:
        without_batch_norm(method)
    change(method)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    # plain SGD: an optimizer that normalises gradients would hide that they are too large by a factor
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    store = TinyStore(BATCH * STEPS)
    sampler = ArithmeticBatchSampler(len(store), BATCH, 3, idist.get_rank(), idist.get_world_size())
    loader = slice_loader(SliceDataset(store, "single"), sampler)
    options = options or StepOptions()
    trainer = PretrainingTrainer("cpu", epochs, loader, method, optimizer, NoisyViews(sizes), options, handlers)
    losses: list[float] = []
    keys: list[list[int]] = []

    @trainer.on(Events.ITERATION_COMPLETED)
    def note(engine: PretrainingTrainer) -> None:
        losses.append(float(engine.state.output[0]["loss"]))
        keys.append(engine.state.batch["index"].tolist())

    try:
        trainer.run()
    except SystemExit as stop:  # by a signal, its state is saved
        losses.append(float(stop.code or 0))
    return {
        "before": before,
        "after": {key: value.clone() for key, value in method.state_dict().items()},
        "losses": losses,
        "keys": keys,
        "metrics": dict(trainer.state.metrics),
    }


def checkpoints_in(folder: Path) -> Any:
    """The handler that saves and resumes."""
    from monai_ssl_transfer.engines.checkpoints.checkpoint import ExactResumeHandler, ResumeOptions

    return ExactResumeHandler(folder, {"seed": 3}, ResumeOptions(checkpoint_every=100))
