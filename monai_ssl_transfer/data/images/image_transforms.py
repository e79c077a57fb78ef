"""MONAI transforms of labelled images: what they show as a tensor, and masks in several files as one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ssl_transfer.data.endoscopy.frame_transforms import LoadMaskd


class ClassTargetd(MapTransform):
    """Make ``label`` of what a case shows, and ``volume`` of what its prediction is averaged over.

    A class number becomes an int64 scalar, a list of findings (C,) float32 of 0 and 1. A case without "volume" is its
    own.

    Args:
        keys: key of the class number or the list.
        allow_missing_keys: pass over keys that a case does not have.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with both."""
        case = dict(data)
        for key in self.key_iterator(case):
            several = isinstance(case[key], list | tuple)
            case["label"] = torch.tensor(case[key], dtype=torch.float32 if several else torch.int64)
        case.setdefault("volume", case.get("name"))
        return case


class LoadMergedMaskd(LoadMaskd):
    """`LoadMaskd` for masks in one file or several (left and right lung): a pixel belongs to the union.

    Args:
        keys: keys with the path of a mask, or a list of paths.
        like: key of the photograph.
        allow_missing_keys: pass over keys that a case does not have.
        ones: take lossless masks of 0 and 1, too (`read_mask`).
    """

    def __init__(
        self, keys: KeysCollection, like: str = "image", allow_missing_keys: bool = False, ones: bool = False
    ) -> None:
        super().__init__(keys, like, allow_missing_keys, ones)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its masks read and merged.

        Raises:
            DataError: as `LoadMaskd`.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            paths = case[key] if isinstance(case[key], list | tuple) else [case[key]]
            one = LoadMaskd(key, self.like, ones=self.ones)
            masks = [one({**case, key: path})[key] for path in paths]
            case[f"{key}_path"] = str(paths[0])
            case[key] = torch.stack(masks).amax(dim=0)
        return case
