"""MONAI dictionary transforms of labels: which values are allowed, and masks of overlapping regions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_ssl_transfer.data.ct.label_checks import item_name
from monai_ssl_transfer.data.volumes.labels import label_values, region_masks
from monai_ssl_transfer.errors import DataError


class TaskLabelsd(MapTransform):
    """Refuse label values that the task does not name.

    Args:
        keys: label items of any shape.
        class_labels: label values by name.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(
        self, keys: KeysCollection, class_labels: Mapping[str, Sequence[int]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.values = label_values(class_labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with labels as uint8."""
        result = dict(data)
        for key in self.key_iterator(result):
            found = torch.unique(torch.as_tensor(result[key])).tolist()
            foreign = [f"{value:g}" for value in found if value not in self.values]
            if foreign:
                raise DataError(
                    f"{item_name(data, key)} holds the label values {', '.join(foreign[:5])} but the task knows only "
                    f"{', '.join(map(str, self.values))}: name them in class_labels or choose the right file."
                )
            result[key] = result[key].to(torch.uint8)
        return result


class TargetMasksd(MapTransform):
    """What the loss compares: classes as they are, or a mask for each overlapping region.

    Args:
        keys: items (1, H, W) with classes, numbers of `label_values`.
        class_labels: label values by name.
        overlapping: make masks, (regions, H, W) float32.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_labels: Mapping[str, Sequence[int]],
        overlapping: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.class_labels, self.overlapping = dict(class_labels), overlapping

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each item."""
        result = dict(data)
        for key in self.key_iterator(result) if self.overlapping else ():
            result[key] = region_masks(torch.as_tensor(result[key]), self.class_labels)
        return result
