"""HU windows: how a CT slice becomes the input channels of a network.

The same code runs in pretraining, in transfer and in inference, so that the three can never see different pictures.
Every window is scaled to [0, 1] and then normalised with the two constants `CT_MEAN` and `CT_STD`. They are chosen,
not measured: 0.5 and 0.25 give [-2, 2], about the range of ImageNet-normalised pictures (-2.1 to 2.6), whatever the
scanner, the body part or the share of air in the field of view. A weights card stores windows, mean and std beside
the encoder.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor, nn

from monai_ssl_transfer.data.endoscopy.normalisation import IMAGENET_MEAN, IMAGENET_STD
from monai_ssl_transfer.errors import DataError, TrainingError

CT_MEAN = 0.5
CT_STD = 0.25


@dataclass(frozen=True)
class HUWindow:
    """A CT display window.

    Args:
        level: centre of the window in HU.
        width: full width of the window in HU, positive.
    """

    level: float
    width: float

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise TrainingError(f"an HU window needs a positive width, got {self.width}: give the full width in HU.")

    @property
    def lower(self) -> float:
        """HU value that is mapped to 0."""
        return self.level - self.width / 2

    @property
    def upper(self) -> float:
        """HU value that is mapped to 1."""
        return self.level + self.width / 2


SOFT_TISSUE = HUWindow(level=40, width=400)
LUNG = HUWindow(level=-600, width=1500)
BONE = HUWindow(level=400, width=1800)
WIDE = HUWindow(level=0, width=2000)
"""From air (-1000 HU) to dense bone (1000 HU): everything that a single channel has to carry."""

CHANNEL_WINDOWS: dict[str, tuple[HUWindow, ...]] = {
    "windows": (SOFT_TISSUE, LUNG, BONE),
    "single": (WIDE,),
    "neighbours": (SOFT_TISSUE,),
    "rgb": (),
}
"""HU windows by channel layout: three windows of one slice, one wide window of one slice, or the soft tissue window of
three adjacent slices (below, this, above); photographs ("rgb") have none."""


def channel_windows(channels: str) -> tuple[HUWindow, ...]:
    """HU windows of a channel layout.

    Args:
        channels: "windows", "single", "neighbours" or "rgb".

    Returns:
        The windows, to be stored in a weights card; none for "rgb".

    Raises:
        TrainingError: for an unknown name.
    """
    if channels not in CHANNEL_WINDOWS:
        raise TrainingError(f"unknown channels '{channels}': choose one of {', '.join(CHANNEL_WINDOWS)}.")
    return CHANNEL_WINDOWS[channels]


def source_channels(channels: str) -> int:
    """Number of channels that go in: 3 slices (below, this, above) for "neighbours", 3 colours for "rgb", else 1."""
    channel_windows(channels)
    return 3 if channels in ("neighbours", "rgb") else 1


def channels_count(channels: str) -> int:
    """Number of network input channels that come out of a channel layout."""
    return max(len(channel_windows(channels)), 1) * source_channels(channels)


def normalisation(channels: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per output channel, as a weights card stores them.

    Args:
        channels: "windows", "single", "neighbours" or "rgb".

    Returns:
        (mean, std), each with one number per output channel, in units of the [0, 1] scale of a window or colour.
    """
    if channels == "rgb":
        return IMAGENET_MEAN, IMAGENET_STD
    count = channels_count(channels)
    return (CT_MEAN,) * count, (CT_STD,) * count


def hu_to_channels(hu: Tensor, windows: Sequence[HUWindow]) -> Tensor:
    """Turn HU values into normalised network input.

    Args:
        hu: (B, 1, H, W) with any number of windows, or (B, C, H, W) with one window; any real dtype, in HU.
        windows: HU windows; several of them become channels.

    Returns:
        (B, C, H, W) float32: every window scaled to [0, 1], clamped, then (x - CT_MEAN) / CT_STD.

    Raises:
        DataError: when there are several slices as well as several windows.
    """
    if hu.shape[-3] > 1 and len(windows) > 1:
        raise DataError(
            f"{hu.shape[-3]} slices cannot be combined with {len(windows)} HU windows: give one slice, or one window."
        )
    lower = torch.tensor([w.lower for w in windows], dtype=torch.float32, device=hu.device).view(-1, 1, 1)
    width = torch.tensor([w.width for w in windows], dtype=torch.float32, device=hu.device).view(-1, 1, 1)
    return _normalised(hu.float(), lower, width)


def _normalised(hu: Tensor, lower: Tensor, width: Tensor, mean: float = CT_MEAN, std: float = CT_STD) -> Tensor:
    # The constants come in as defaults because TorchScript, which exports bundles, cannot read module globals.
    return (((hu - lower) / width).clamp(0.0, 1.0) - mean) / std


class HUToChannels(nn.Module):
    """First layer of every CT network of this package: HU in, normalised channels out, without any state.

    Args:
        channels: "windows" (1 slice -> 3 channels), "single" (1 -> 1) or "neighbours" (3 -> 3).
    """

    def __init__(self, channels: str = "windows") -> None:
        super().__init__()
        windows = channel_windows(channels)
        if not windows:
            raise TrainingError(f"channels '{channels}' has no HU windows: it is for photographs, not for CT slices.")
        self.lower: Tensor
        self.width: Tensor
        self.channels = channels
        self.source_channels = source_channels(channels)
        self.register_buffer("lower", torch.tensor([w.lower for w in windows]).view(-1, 1, 1), persistent=False)
        self.register_buffer("width", torch.tensor([w.width for w in windows]).view(-1, 1, 1), persistent=False)

    def forward(self, hu: Tensor) -> Tensor:
        """Window and normalise a batch.

        Args:
            hu: (B, 1, H, W), or (B, 3, H, W) for "neighbours"; HU.

        Returns:
            (B, C, H, W) float32.
        """
        if hu.shape[-3] != self.source_channels:
            raise DataError(
                f"channels '{self.channels}' needs {self.source_channels} slice(s) per sample, got {hu.shape[-3]}: "
                "load the slices with the same channels."
            )
        return _normalised(hu.float(), self.lower, self.width)


class HUToChannelsd(MapTransform):
    """MONAI dictionary transform around `HUToChannels`, for one slice at a time.

    Args:
        keys: items that hold HU values, each (1, H, W), or (3, H, W) for "neighbours".
        channels: "windows", "single" or "neighbours".
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(self, keys: KeysCollection, channels: str = "windows", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.converter = HUToChannels(channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each item by its (C, H, W) float32 channels."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.converter(convert_to_tensor(result[key], track_meta=True))
        return result
