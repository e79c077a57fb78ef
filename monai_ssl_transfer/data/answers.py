"""What a label server answers to its clients: the last steps of `post_transforms`, after which MONAI Label writes.

`postprocessing` of a bundle writes files of its own for ``monai.bundle run``; a server wants the result in the item,
in the layout of MONAI Label's writers: (W, H) pictures of whole numbers, boxes by centre and size.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_ssl_transfer.data.endoscopy.depth_transforms import relative_depth


class AnswerMaskd(MapTransform):
    """Label maps (1, H, W) become (W, H) uint8 for a lossless PNG, unless the client asked for another kind of file.

    Args:
        keys: label maps at the native size of the upright photograph.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item for the writer."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = _plane(item[key]).astype(np.uint8).T.copy()
        return _as_png(item)


class AnswerDepthd(MapTransform):
    """Depth (1, H, W) becomes (W, H) uint16 for a PNG: 0 the nearest pixel of the photograph, 65535 the farthest.

    Args:
        keys: predictions at the native size of the upright photograph.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item for the writer.

        Raises:
            DataError: the prediction is not finite.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = relative_depth(_plane(item[key])).T.copy()
        return _as_png(item)


class AnswerBoxesd(MapTransform):
    """Boxes of a detector become ``box`` (N, 6), centre and size in pixels, and ``label`` (N,), the class from 0 on.

    The centre of the first pixel is the origin, x runs along the columns and y along the rows, which is where 3D Slicer
    lays a photograph; z is 0 and the depth 1.

    Args:
        keys: (N, 4) float, x0, y0, x1, y1 with 0 at the outer edge of the first pixel.
        score_threshold: boxes with a lower score are left out.
        labels: item with the (N,) classes, from 1 on.
        scores: item with the (N,) scores.
    """

    def __init__(
        self, keys: KeysCollection, score_threshold: float = 0.0, labels: str = "labels", scores: str = "scores"
    ) -> None:
        super().__init__(keys)
        self.score_threshold, self.labels, self.scores = score_threshold, labels, scores

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item for the writer."""
        item = dict(data)
        for key in self.key_iterator(item):
            kept = item[self.scores] >= self.score_threshold
            boxes = item[key][kept]
            centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5, boxes[:, 2:] - boxes[:, :2]
            flat, deep = torch.zeros_like(centres[:, :1]), torch.ones_like(centres[:, :1])
            item["box"] = torch.cat([centres, flat, sizes, deep], dim=1)
            item["label"] = item[self.labels][kept] - 1
            item[self.scores] = item[self.scores][kept]
        return item


def _plane(image: Any) -> np.ndarray:
    """The one channel of (1, H, W), meta tensor or not."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    return plain[0].detach().cpu().numpy()


def _as_png(item: dict[Hashable, Any]) -> dict[Hashable, Any]:
    # MONAI Label writes the kind of file that came in: as JPEG, a mask would lose its values.
    if not item.get("result_extension"):
        item["result_extension"] = ".png"
    return item
