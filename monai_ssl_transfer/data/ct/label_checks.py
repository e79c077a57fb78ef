"""MONAI dictionary transforms that stop at labels that do not belong to the task or to the image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_ssl_transfer.errors import DataError


def item_name(data: Mapping[Hashable, Any], key: Hashable) -> str:
    """What to call an item in a message: its file, else its case, else its key."""
    item = data[key]
    if isinstance(item, MetaTensor) and "filename_or_obj" in item.meta:
        return str(item.meta["filename_or_obj"])
    return f"the {key} of case {data['case']}" if "case" in data else f"a {key}"


class KnownLabelsd(MapTransform):
    """Refuse labels that the network has no output for.

    Args:
        keys: label items of any shape.
        classes: number of outputs; labels must be 0 ... classes - 1.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(self, keys: KeysCollection, classes: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes = classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data unchanged."""
        for key in self.key_iterator(dict(data)):
            highest = int(torch.as_tensor(data[key]).max())
            if highest >= self.classes:
                raise DataError(
                    f"{item_name(data, key)} holds the label {highest}, but the task ends at {self.classes - 1}: "
                    "map the labels or choose the right file."
                )
        return dict(data)


class SameGridd(MapTransform):
    """Refuse labels that do not lie on the grid of their image: other shape, or corners more than half a voxel away.

    Args:
        keys: label items, `MetaTensor` (1, R, C, Z).
        like: item with the image.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(self, keys: KeysCollection, like: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.like = like

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data unchanged."""
        image = data[self.like]
        for key in self.key_iterator(dict(data)):
            names = f"{item_name(data, key)} is not on the grid of {item_name(data, self.like)}"
            shape = tuple(image.shape[1:])
            if tuple(data[key].shape[1:]) != shape:
                raise DataError(f"{names} ({tuple(data[key].shape[1:])} and {shape} voxels): pair the right files.")
            ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(len(shape) + 1, -1)
            affines = [np.asarray(one.affine.cpu(), dtype=float) for one in (data[key], image)]
            distance = float(np.linalg.norm(((affines[0] - affines[1]) @ ends)[:3], axis=0).max())
            if distance > 0.5 * np.linalg.norm(affines[1][:3, :3], axis=0).min():
                raise DataError(f"{names} (up to {distance:.1f} mm away): pair the right files or mend the affine.")
        return dict(data)
