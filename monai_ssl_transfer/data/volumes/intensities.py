"""How the voxels of a volume become the input of a network: HU windows for CT, a scale of its own for any other.

CT keeps its HU. Other scanners have no unit, so that each volume is scaled by its own voxels, those that are not zero
(nnU-Net's rule; zero is what lies outside of a brain without its skull):

| channels | network input | stored as | outside, padding |
|---|---|---|---|
| windows, single, neighbours | HU windows (`views.windows`) | HU | air, -1024 HU |
| z_score | (v - mean) / SD, clipped to -5 and 30 | 200 times that | 0, the mean |
| percentile | percentiles 0.5 to 99.5 to 0 ... 1, clipped, then as an HU window | 1000 times 0 ... 1 | 0 |

Stored values are whole numbers of 16 bits, with steps far below noise; training reads them from the slice store and
inference makes the same ones from the file.

Source: Isensee et al., nnU-Net, Nature Methods 18 (2021) 203 (z-score within the non-zero voxels, zero outside).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor, nn

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.windows import CHANNEL_WINDOWS, CT_MEAN, CT_STD, HUToChannels, channels_count

AIR = -1024
Z_SCORE, PERCENTILE = "z_score", "percentile"
SCALES = {Z_SCORE: 200.0, PERCENTILE: 1000.0}
_SCORES = (-5.0, 30.0)
_PERCENTILES = (0.5, 99.5)


def is_hounsfield(channels: str) -> bool:
    """Whether a channel layout is of HU; the others scale each volume by its own voxels.

    Raises:
        DataError: an unknown layout, or that of photographs.
    """
    known = [name for name, windows in CHANNEL_WINDOWS.items() if windows]
    if channels not in (*known, *SCALES):
        raise DataError(f"channels is {channels!r}: choose one of {', '.join((*known, *SCALES))}.")
    return channels in known


def fill_value(channels: str) -> int:
    """What lies outside of a volume, in stored units."""
    return AIR if is_hounsfield(channels) else 0


def input_count(channels: str, modalities: Sequence[Any] | str | int | None = None) -> int:
    """Channels of the network's input: of HU as the layout says; else the modalities, a single one three times.

    Args:
        channels: layout.
        modalities: those of each volume; None for one.

    Raises:
        DataError: several modalities and HU windows.
    """
    count = 1 if isinstance(modalities, str | int) else len(modalities or (0,))
    if not is_hounsfield(channels):
        return count if count > 1 else 3
    if count > 1:
        raise DataError(
            f"channels {channels} is for one CT and not for {count} modalities: choose z_score or percentile."
        )
    return channels_count(channels)


def scaled(values: np.ndarray, channels: str, name: str) -> np.ndarray:
    """One volume in stored units.

    Args:
        values: of one modality, any shape and real type.
        channels: "z_score" or "percentile".
        name: of the file, for the message.

    Returns:
        int16 of the same shape.

    Raises:
        DataError: values that are not finite, or all alike but for zeros.
    """
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{name} holds NaN or infinite voxels: repair or remove the volume.")
    inside = values != 0
    found = values[inside]
    if not found.size or found.min() == found.max():
        raise DataError(f"{name} shows nothing (all its voxels that are not zero are alike): remove the volume.")
    if channels == Z_SCORE:
        mean, spread = float(found.mean(dtype=np.float64)), float(found.std(dtype=np.float64))
        result = np.where(inside, np.clip((values - mean) / spread, *_SCORES), 0)
    else:
        low, high = (float(one) for one in np.percentile(found, _PERCENTILES))
        high = high if high > low else float(found.max())
        result = np.where(inside, np.clip((values - low) / max(high - low, 1e-12), 0, 1), 0)
    return np.rint(result * SCALES[channels]).astype(np.int16)


class VolumeIntensitiesd(MapTransform):
    """Choose the modalities of a volume and scale each one; CT stays in HU.

    Args:
        keys: items (modalities, R, C, Z), as they were read.
        channels: layout of the network's input.
        volumes: numbers of the modalities of a four-dimensional file that are used, in their order; None takes all.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: str,
        volumes: Sequence[int] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.hounsfield = is_hounsfield(channels)
        self.channels, self.volumes = channels, None if volumes is None else list(volumes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each item by float32 in stored units.

        Raises:
            DataError: a modality is missing, or the voxels cannot be scaled.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            name = str(getattr(image, "meta", {}).get("filename_or_obj", f"the {key} of case {data.get('case', '?')}"))
            if self.volumes is not None and max(self.volumes) >= len(image):
                raise DataError(
                    f"{name} has {len(image)} volume(s) and lacks number {max(self.volumes)}: choose other modalities."
                )
            chosen = image if self.volumes is None else image[self.volumes]
            plain = torch.as_tensor(chosen.as_tensor() if isinstance(chosen, MetaTensor) else chosen)
            if not self.hounsfield:
                parts = [scaled(one, self.channels, name) for one in plain.numpy()]
                plain = torch.from_numpy(np.stack(parts).astype(np.float32))
            result[key] = MetaTensor(plain).copy_meta_from(image) if isinstance(image, MetaTensor) else plain
        return result


class VolumeToChannels(nn.Module):
    """First layer of the networks of volumes: stored units in, normalised channels out, without any state.

    Args:
        channels: layout.
        in_channels: channels of the network's input; a single modality is repeated.
    """

    def __init__(self, channels: str, in_channels: int = 3) -> None:
        super().__init__()
        self.windows: nn.Module | None = HUToChannels(channels) if is_hounsfield(channels) else None
        self.channels, self.in_channels = channels, in_channels

    def forward(self, slices: Tensor) -> Tensor:
        """(B, modalities, H, W) in stored units, or HU of 1 or 3 slices, to (B, in_channels, H, W) float32."""
        if self.windows is not None:
            return self.windows(slices)
        values = slices.float() / SCALES[self.channels]
        if self.channels == PERCENTILE:
            values = (values - CT_MEAN) / CT_STD
        return values.repeat(1, self.in_channels, 1, 1) if values.shape[1] == 1 else values


class VolumeToChannelsd(MapTransform):
    """`VolumeToChannels` for one slice at a time, (modalities, H, W); arguments as there."""

    def __init__(
        self, keys: KeysCollection, channels: str, in_channels: int = 3, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.converter = VolumeToChannels(channels, in_channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each item by its (in_channels, H, W) float32 channels."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
            result[key] = self.converter(plain[None])[0]
        return result
