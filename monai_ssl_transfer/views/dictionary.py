"""The views of `BatchedViews` as a MONAI dictionary transform, for ordinary MONAI pipelines."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.batched import BatchedViews
from monai_ssl_transfer.views.recipes import ViewRecipe

_INT16 = (-32768, 32767)


class SSLViewsd(MapTransform):
    """Add the random views of a picture to its dictionary, as "<key>_view_0", "<key>_view_1", ...

    The random numbers come from (seed, epoch, sample, view), not from MONAI's random state, so `set_determinism` does
    not change them. Give the epoch in the dictionary (item "epoch") or with `set_epoch`; worker processes that stay
    alive between epochs only see the former.

    Args:
        keys: items to make views of: (1 or 3, H, W) HU, or (3, H, W) RGB from 0 to 255; whole numbers in any dtype
            (HU are rounded).
        recipe: one `ViewRecipe` per view.
        channels: "windows", "single", "neighbours" or "rgb".
        seed: seed of the run.
        sample_key: item that holds the number of the sample in its data set.
        allow_missing_keys: do not fail when a key is absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        recipe: Sequence[ViewRecipe],
        channels: str = "windows",
        seed: int = 0,
        sample_key: str = "index",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.views = BatchedViews(recipe, channels, seed)
        self.sample_key = sample_key
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of dictionaries that do not carry one."""
        self.epoch = epoch

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of `data` with the views, each a float32 (C, S, S) tensor.

        Raises:
            DataError: when the sample number is missing.
        """
        result = dict(data)
        if self.sample_key not in result:
            raise DataError(
                f"SSLViewsd found no item '{self.sample_key}': put the sample's number in the data set there."
            )
        sample = torch.tensor([int(result[self.sample_key])])
        epoch = int(result.get("epoch", self.epoch))
        for key in self.key_iterator(result):
            views = self.views(self._stored(result[key])[None], None, sample, epoch)
            result.update({f"{key}_view_{number}": view[0] for number, view in enumerate(views)})
        return result

    def _stored(self, image: Any) -> Tensor:
        tensor = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
        if self.views.channels == "rgb":
            return tensor.to(torch.uint8)
        return tensor.round().clamp(*_INT16).to(torch.int16) if tensor.is_floating_point() else tensor.to(torch.int16)
