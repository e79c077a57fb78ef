"""What a frozen encoder gives for whole images: its embedding and, of a ViT, the tokens of its last blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from monai_ssl_transfer.engines.embedding.cache import EmbeddingCache, Features
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.networks.encoders import encoder_spec, pooling_of

LAST_BLOCKS = 4
"""As many as the linear evaluation of DINO and DINOv2 looks at."""
_BYTES_KEPT = 64 * 2**20
"""Embeddings that are gathered before they are written: a kill costs no more than these."""


class EncoderFeatures(nn.Module):
    """An encoder's embedding and, of a ViT, class token and mean patch token of its last blocks.

    Each block's tokens go through the encoder's last norm, as in the linear evaluation of DINOv2 (Oquab et al. 2024,
    appendix B.3).

    Args:
        encoder: of `build_encoder` or `load_encoder`.
        architecture: its name in `encoder_names()`.
        last_blocks: how many blocks, counted from the last one.
    """

    def __init__(self, encoder: Any, architecture: str, last_blocks: int = LAST_BLOCKS) -> None:
        super().__init__()
        self.spec = encoder_spec(architecture)
        self.encoder = encoder
        self.last_blocks = min(last_blocks, self.spec.depth) if self.spec.family == "vit" else 0
        self.kind = 1 if pooling_of(encoder) == "mean" else 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embed a batch.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, D), and (B, L, 2, D) of a ViT: last block first; class token, then mean of the patch tokens.
        """
        encoder = self.encoder
        if not self.last_blocks:
            return encoder(images), None
        tokens = encoder.norm_pre(encoder.patch_drop(encoder._pos_embed(encoder.patch_embed(images))))
        first = self.spec.depth - self.last_blocks
        seen: list[Tensor] = []
        for number, block in enumerate(encoder.blocks):
            tokens = block(tokens)
            if number >= first:
                normed = encoder.norm(tokens)
                seen.insert(0, torch.stack([normed[:, 0], normed[:, self.spec.prefix_tokens :].mean(dim=1)], dim=1))
        blocks = torch.stack(seen, dim=1)
        return blocks[:, 0, self.kind], blocks


def cached_features(
    network: EncoderFeatures,
    images: Dataset,
    names: Sequence[str],
    cache: EmbeddingCache,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    num_workers: int = 0,
) -> Features:
    """Embeddings of images; only those that the cache does not know go through the encoder.

    Args:
        network: on any device; in evaluation mode afterwards.
        images: gives (C, H, W) float32 by position.
        names: content hash per image; images of one hash are embedded once.
        cache: is filled as embeddings come.
        device: where to compute.
        batch_size: images per forward pass.
        num_workers: processes that read images.

    Returns:
        A row per image, on the CPU.

    Raises:
        DataError: an embedding is not finite, or the cache cannot be written.
    """
    found, known = cache.load(names)
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        first.setdefault(name, number)
    missing = [number for number in first.values() if not known[number]]
    made = list(_embedded(network, images, missing, names, cache, device, batch_size, num_workers))
    if not made:
        return found or _nothing(network)
    rows = {names[number]: row for row, number in enumerate(missing)}
    fresh = np.flatnonzero(~known)
    sources = torch.tensor([rows[names[number]] for number in fresh.tolist()], dtype=torch.int64)
    return _filled(found, _joined(made), torch.from_numpy(fresh), sources, len(names))


@torch.no_grad()
def _embedded(
    network: EncoderFeatures,
    images: Dataset,
    missing: list[int],
    names: Sequence[str],
    cache: EmbeddingCache,
    device: torch.device | str,
    batch_size: int,
    num_workers: int,
) -> Iterator[Features]:
    """Embeddings of the missing images in parts, each kept before the next one is made."""
    network.to(device).eval()
    subset: Dataset = Subset(images, missing)
    loader = DataLoader(subset, batch_size, num_workers=num_workers, generator=torch.Generator())
    waiting: list[Features] = []
    done, size = 0, 0
    for batch in tqdm(loader, desc="embedding", unit="batch", disable=None):
        vectors, blocks = network(batch.to(device))
        waiting.append(Features(vectors.float().cpu(), None if blocks is None else blocks.float().cpu()))
        size += sum(part.numel() * 4 for part in (vectors, blocks) if part is not None)
        last = done + sum(map(len, waiting)) == len(missing)
        if size < _BYTES_KEPT and not last:
            continue
        part, waiting, size = _joined(waiting), [], 0
        own = [names[number] for number in missing[done : done + len(part)]]
        if not torch.isfinite(part.vectors).all():
            raise DataError(
                f"the embedding of one of the {len(part)} images from number {missing[done]} on is not finite: the "
                "encoder's weights or an image are damaged."
            )
        cache.add(own, part)
        done += len(part)
        yield part


def _joined(parts: Sequence[Features]) -> Features:
    blocks = [part.blocks for part in parts if part.blocks is not None]
    return Features(torch.cat([part.vectors for part in parts]), torch.cat(blocks) if blocks else None)


def _nothing(network: EncoderFeatures) -> Features:
    width = network.spec.width
    blocks = torch.zeros(0, network.last_blocks, 2, width) if network.last_blocks else None
    return Features(torch.zeros(0, width), blocks)


def _filled(found: Features | None, made: Features, rows: Tensor, sources: Tensor, count: int) -> Features:
    """What was known and what was made, in the order of the images."""
    if found is None:
        blocks = None if made.blocks is None else torch.zeros(count, *made.blocks.shape[1:])
        found = Features(torch.zeros(count, made.vectors.shape[1]), blocks)
    found.vectors[rows] = made.vectors[sources]
    if found.blocks is not None and made.blocks is not None:
        found.blocks[rows] = made.blocks[sources]
    return found
