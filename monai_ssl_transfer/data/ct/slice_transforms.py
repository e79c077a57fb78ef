"""In-plane resampling of CT slices: the one piece of geometry that training and inference must share.

A slice is resampled to a working pixel spacing (mm) and filled up with air. Training does it through the MONAI
dictionary transform `SliceSpacingd`, inference through `SliceVolumeInferer`; both call `resample_slices`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor, ensure_tuple_rep
from torch import Tensor
from torch.nn import functional

from monai_ssl_transfer.errors import DataError

AIR = -1024
"""HU of everything outside the field of view."""


def working_size(size: Sequence[int], spacing: Sequence[float], pixel_spacing: Sequence[float]) -> tuple[int, int]:
    """Size of a slice after resampling.

    Args:
        size: (rows, columns) as stored.
        spacing: (row, column) spacing as stored, mm.
        pixel_spacing: (row, column) working spacing, mm.

    Returns:
        (rows, columns), at least 1 each.
    """
    rows, columns = (max(1, round(n * old / new)) for n, old, new in zip(size, spacing, pixel_spacing, strict=True))
    return rows, columns


def resample_slices(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize slices bilinearly, with antialiasing along any axis that shrinks.

    Args:
        image: (B, C, H, W) floating point.
        size: (rows, columns) wanted.

    Returns:
        (B, C, rows, columns); the input itself when the size is right already.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    shrinks = size[0] < image.shape[-2] or size[1] < image.shape[-1]
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def resample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize label slices by the nearest pixel centre (the grid of `resample_slices`).

    Args:
        labels: (B, C, H, W) of any dtype.
        size: (rows, columns) wanted.
    """
    if tuple(labels.shape[-2:]) == tuple(size):
        return labels
    return functional.interpolate(labels.float(), size=size, mode="nearest-exact").to(labels.dtype)


def pad_slices(image: Tensor, multiple: int, value: float = AIR) -> tuple[Tensor, tuple[int, int]]:
    """Fill slices up, the same on both sides, until rows and columns are multiples of a number.

    Args:
        image: (B, C, H, W).
        multiple: what the network needs (32 for five halvings).
        value: fill value, air by default.

    Returns:
        The padded slices and the (row, column) at which the original starts.
    """
    rows, columns = (-(-n // multiple) * multiple for n in image.shape[-2:])
    top, left = (rows - image.shape[-2]) // 2, (columns - image.shape[-1]) // 2
    padding = (left, columns - image.shape[-1] - left, top, rows - image.shape[-2] - top)
    if not any(padding):
        return image, (0, 0)
    return functional.pad(image, padding, value=value), (top, left)


class SliceSpacingd(MapTransform):
    """Resample slices to the working pixel spacing; HU below air become air.

    Args:
        keys: items of shape (C, H, W).
        pixel_spacing: (row, column) working spacing in mm, or one number for both.
        mode: "bilinear" (images, HU) or "nearest" (labels), per key.
        spacing_key: item that holds the stored (row, column) spacing in mm.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixel_spacing: float | Sequence[float],
        mode: str | Sequence[str] = "bilinear",
        spacing_key: str = "spacing",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixel_spacing = ensure_tuple_rep(pixel_spacing, 2)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.spacing_key = spacing_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each item by its resampled slice and `spacing_key` by the working spacing."""
        result = dict(data)
        spacing = [float(s) for s in result[self.spacing_key]]
        if not all(s > 0 for s in spacing):
            raise DataError(f"a slice has no pixel spacing ({spacing}): ingest it again with spacing.")
        for key, mode in self.key_iterator(result, self.mode):
            item = convert_to_tensor(result[key], track_meta=False)
            size = working_size(item.shape[-2:], spacing, self.pixel_spacing)
            if mode == "nearest":
                result[key] = resample_labels(item[None], size)[0]
            else:
                result[key] = resample_slices(item[None].float().clamp_min(AIR), size)[0]
        result[self.spacing_key] = torch.tensor(self.pixel_spacing, dtype=torch.float32)
        return result


class RestoreAffined(MapTransform):
    """Give an inverted mask exactly the affine that its image was read with, without the rounding of the way back.

    Args:
        keys: `MetaTensor` items whose meta data hold "original_affine".
        tolerance: largest difference in mm that can be rounding; more means that the mask is on another grid.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(self, keys: KeysCollection, tolerance: float = 1e-3, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.tolerance = tolerance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the affine of each item."""
        result = dict(data)
        for key in self.key_iterator(result):
            item = result[key]
            original = torch.as_tensor(item.meta["original_affine"], dtype=torch.float64)
            if not torch.allclose(item.affine.double(), original, rtol=0.0, atol=self.tolerance):
                raise DataError(
                    f"the mask of {item.meta.get('filename_or_obj', 'a volume')} is not on the grid of its image: "
                    "put Invertd of all spatial transforms before RestoreAffined."
                )
            item.affine = original
        return result
