"""A CT volume as some of its slices, for networks that judge one slice at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ssl_transfer.data.ct.nifti import read_nifti_ct

SLICES = 32
"""At most so many of a volume are looked at."""


def even_numbers(total: int, count: int = SLICES) -> list[int]:
    """Numbers of at most ``count`` of ``total`` slices, evenly spaced, the first and the last among them."""
    found: list[int] = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
    return found


def even_slices(path: str | Path, channels: str = "windows", count: int = SLICES) -> list[dict[str, Any]]:
    """Read slices of a CT volume, evenly spaced from the lowest to the highest.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        channels: "neighbours" gives each slice between the one below and the one above it.
        count: at most so many.

    Returns:
        For each, as a slice store gives them: "image" (1 or 3, R, C) int16 HU, "series", "position" (mm), "spacing"
        (row and column, mm).

    Raises:
        DataError: as `read_nifti_ct`.
    """
    volume = read_nifti_ct(path)
    last = len(volume.hu) - 1
    offsets = (-1, 0, 1) if channels == "neighbours" else (0,)
    return [
        {
            "image": torch.from_numpy(volume.hu[[min(max(number + one, 0), last) for one in offsets]].copy()),
            "series": Path(path).name,
            "position": float(volume.positions[number]),
            "spacing": torch.tensor(volume.spacing),
        }
        for number in even_numbers(len(volume.hu), count)
    ]


class LoadVolumeSlicesd(MapTransform):
    """Read a CT volume and prepare its slices as those of a slice store: (S, C, H, W), for `SliceMeanInferer`.

    Args:
        keys: paths of NIfTI files.
        transform: prepares one slice, an item of "image" and "spacing".
        channels: "windows", "single" or "neighbours".
        count: at most so many slices.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable[[dict[str, Any]], Mapping[str, Any]],
        channels: str = "windows",
        count: int = SLICES,
    ) -> None:
        super().__init__(keys)
        self.transform, self.channels, self.count = transform, channels, count

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its slices.

        Raises:
            DataError: as `read_nifti_ct`.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            slices = even_slices(item[key], self.channels, self.count)
            item[key] = torch.stack([torch.as_tensor(self.transform(one)["image"]) for one in slices])
        return item
