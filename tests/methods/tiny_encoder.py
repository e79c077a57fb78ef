"""A tiny encoder and random views for the tests of the methods."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class TinyEncoder(nn.Module):
    """Two convolutions to 16 numbers; with or without batch norm."""

    def __init__(self, batch_norm: bool = True):
        super().__init__()
        self.num_features = 16
        norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(16)] if batch_norm else [nn.Identity(), nn.Identity()]
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), norms[0], nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), norms[1], nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


def tiny_vit(**options: Any) -> VisionTransformer:
    """Two blocks to 16 numbers, patches of 4 pixels; made for images of 16, takes all multiples of 4."""
    shape = {"img_size": 16, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return VisionTransformer(**{**shape, "num_classes": 0, "dynamic_img_size": True, **options})


def random_views(seed: int, sizes: tuple[int, ...] = (16, 16), batch: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 1, size, size, generator=generator) for size in sizes]


def patterned_views(seed: int, batch: int = 16, sizes: tuple[int, ...] = (16, 16)) -> list[Tensor]:
    """Stripes of random direction and frequency per image, with other noise and contrast in each view."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, generator=generator)

    angle, frequency = uniform(0, 3.14), uniform(0.3, 2.0)
    views = []
    for size in sizes:
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        phase = uniform(0, 6.28)
        wave = torch.sin(frequency * (rows * torch.sin(angle) + columns * torch.cos(angle)) + phase)
        noise = 0.2 * torch.randn(batch, size, size, generator=generator)
        views.append((uniform(0.7, 1.3) * wave + noise)[:, None])
    return views
