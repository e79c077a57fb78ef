"""Images through several encoders at once: embeddings, embeddings of two views, and CKA, in one reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from monai_ssl_transfer.data.slices import SliceDataset, collate_slices
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.cka import MinibatchCKA
from monai_ssl_transfer.evaluation.features.images import ChosenImages
from monai_ssl_transfer.evaluation.features.layers import layer_grams
from monai_ssl_transfer.evaluation.features.sources import FeatureEncoder
from monai_ssl_transfer.views import BatchedViews, recipe


@dataclass(frozen=True)
class Passed:
    """What came out of the encoders.

    Args:
        vectors: (N, D) float32 per encoder.
        views: two (N, D) per encoder, of two random views of each image.
        layers: names of the layers of each encoder.
        cka: (layers of the first, layers of the other) for the first encoder and every other one.
        batches: how many the CKA is a mean over.
    """

    vectors: list[np.ndarray]
    views: list[tuple[np.ndarray, np.ndarray]]
    layers: list[tuple[str, ...]]
    cka: list[np.ndarray]
    batches: int


@torch.no_grad()
def pass_images(
    encoders: Sequence[FeatureEncoder],
    images: ChosenImages,
    views: str = "simclr",
    device: str = "cpu",
    batch_size: int = 64,
    seed: int = 0,
    told: Callable[[int], object] = lambda done: None,
) -> Passed:
    """Send all images through all encoders.

    Args:
        encoders: of `read_encoders`; moved to the device.
        images: in random order, so that a batch is a random sample.
        views: method whose first two published views are used, e.g. "simclr".
        device: where the encoders run.
        batch_size: at most so many images at once; the CKA is a mean over batches.
        seed: of the views.
        told: called with the number of images done after each batch.

    Raises:
        DataError: an encoder gives numbers that are not finite, or the device is not there.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DataError(f"--device {device}: no such device can be used on this machine: leave it out.")
    for one in encoders:
        one.encoder.to(device)
    made = [_views(one, images, views, seed) for one in encoders]
    compared = [MinibatchCKA() for _ in encoders[1:]]
    out: list[list[list[np.ndarray]]] = [[[], [], []] for _ in encoders]
    layers: list[tuple[str, ...]] = [() for _ in encoders]
    done = 0
    for batch in np.array_split(np.arange(len(images)), -(-len(images) // batch_size)):
        grams: list[list[Tensor]] = []
        for i, one in enumerate(encoders):
            raw = SliceDataset(images.store, one.settings.channels, images.numbers[batch])
            items = [raw[place] for place in range(len(batch))]
            with layer_grams(one.encoder) as found:
                out[i][0].append(_embedded(one, whole_images(one, items).to(device)))
            layers[i] = tuple(found)
            grams.append([gram.cpu() for gram in found.values()])
            collated = collate_slices(items)
            # on the CPU, where every device draws the same views
            pair = made[i](collated["image"], collated["size"], collated["index"], 0)
            for view, kept in zip(pair, out[i][1:], strict=True):
                kept.append(_embedded(one, one.of_views(view).to(device)))
        for cka, other in zip(compared, grams[1:], strict=True):
            cka.add(grams[0], other)
        done += len(batch)
        told(done)
    joined = [[np.concatenate(part) for part in parts] for parts in out]
    for one, parts in zip(encoders, joined, strict=True):
        if not all(np.isfinite(part).all() for part in parts):
            raise DataError(f"{one.source} gives features that are not finite: its weights or an image are damaged.")
    batches = compared[0].batches if compared else 0
    cka_values = [one.value().numpy() for one in compared]
    return Passed([one[0] for one in joined], [(one[1], one[2]) for one in joined], layers, cka_values, batches)


def whole_images(one: FeatureEncoder, items: Sequence[dict]) -> Tensor:
    """Whole images as an encoder sees them without any randomness, (B, C, S, S) float32.

    Args:
        one: the encoder.
        items: of a `SliceDataset` with its channels.
    """
    side = (one.settings.image_size, one.settings.image_size)
    to_channels = one.settings.to_channels(one.settings.channels)
    resized = [functional.interpolate(i["image"][None].float(), side, mode="bilinear", antialias=True) for i in items]
    channels: Tensor = to_channels(torch.cat(resized))
    return channels


def _views(one: FeatureEncoder, images: ChosenImages, method: str, seed: int) -> BatchedViews:
    domain = "rgb" if images.photographs else "ct"
    both = recipe(method, domain, one.settings.image_size, one.settings.encoder_name)
    return BatchedViews((both[0], both[min(1, len(both) - 1)]), one.settings.channels, seed)


def _embedded(one: FeatureEncoder, batch: Tensor) -> np.ndarray:
    found: np.ndarray = one.encoder(batch).float().cpu().numpy()
    return found
