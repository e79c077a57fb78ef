"""MONAI transforms of photographs together with the boxes on them: resize, flip, quarter turns and scale.

An item holds "image" (3, H, W) uint8, "boxes" (N, 4) float32, [x0, y0, x1, y1] in pixels of the image with x along the
columns, 0 at the outer edge of the first pixel and x1, y1 behind the last one, and "labels" (N,) int64. MONAI's own box
transforms count x along the first axis, which for images of rows and columns is y; torchvision's detectors do not.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor
from torchvision.transforms.v2 import functional

from monai_ssl_transfer.errors import DataError

SMALLEST_SIDE = 1.0
"""Pixels; a box that is cut to less is dropped."""


def fit_longest_side(image: Tensor, size: int) -> Tensor:
    """Resize an image so that its longer side has ``size`` pixels; the aspect is kept, bilinear with antialias.

    Args:
        image: (C, H, W) uint8 or float.
        size: pixels.

    Returns:
        (C, h, w) of the same type.
    """
    rows, columns = image.shape[-2:]
    scale = size / max(rows, columns)
    return functional.resize_image(image, [max(1, round(n * scale)) for n in (rows, columns)], antialias=True)


def flip_boxes(boxes: Tensor, size: Sequence[int], axis: int) -> Tensor:
    """Boxes (N, 4) on an image of ``size`` (rows, columns) that is flipped: axis 0 top to bottom, 1 left to right."""
    low, high = (1, 3) if axis == 0 else (0, 2)
    flipped = boxes.clone()
    flipped[:, low], flipped[:, high] = size[axis] - boxes[:, high], size[axis] - boxes[:, low]
    return flipped


def rotate_boxes(boxes: Tensor, size: Sequence[int], turns: int) -> Tensor:
    """Boxes (N, 4) on an image of ``size`` (rows, columns) after ``torch.rot90(image, turns, (-2, -1))``."""
    rows, columns = size
    for _ in range(turns % 4):
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        boxes = torch.stack([y0, columns - x1, y1, columns - x0], dim=1)
        rows, columns = columns, rows
    return boxes


def scale_boxes(boxes: Tensor, before: Sequence[int], after: Sequence[int], place: Sequence[int] = (0, 0)) -> Tensor:
    """Boxes (N, 4) on an image that is resized, then laid down somewhere else.

    Args:
        boxes: before.
        before: rows and columns before.
        after: rows and columns after the resizing.
        place: row and column where its upper left corner comes to lie; below 0 where it is cut.
    """
    factor = boxes.new_tensor([after[1] / before[1], after[0] / before[0]]).repeat(2)
    return boxes * factor + boxes.new_tensor([place[1], place[0]]).repeat(2)


def clip_boxes(boxes: Tensor, size: Sequence[int], visible_share: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cut boxes at the edges of an image.

    Args:
        boxes: (N, 4).
        size: rows and columns of the image.
        visible_share: a box of whose area less than this share is left is dropped.

    Returns:
        The (N, 4) boxes, cut, and (N,) bool: those that are to be kept, at least one pixel wide and high.
    """
    limit = boxes.new_tensor([size[1], size[0]]).repeat(2)
    cut = torch.minimum(boxes.clamp(min=0), limit)
    sides = cut[:, 2:] - cut[:, :2]
    whole = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return cut, (sides >= SMALLEST_SIDE).all(dim=1) & (sides.prod(dim=1) >= visible_share * whole)


class BoxesToTensord(MapTransform):
    """Turn the boxes of a case into tensors and give each the class of its case; adds ``labels``, (N,) int64.

    Args:
        keys: lists of [x0, y0, x1, y1], replaced by (N, 4) float32; an empty list is a photograph without any.
        class_key: item with the class of the boxes, an int from 1 on.
    """

    def __init__(self, keys: KeysCollection = "boxes", class_key: str = "class") -> None:
        super().__init__(keys)
        self.class_key = class_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with tensors."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = torch.as_tensor(case[key], dtype=torch.float32).reshape(-1, 4)
            case["labels"] = torch.full((len(case[key]),), int(case[self.class_key]), dtype=torch.int64)
        return case


class FitLongestSided(MapTransform):
    """Resize photographs so that their longer side has ``size`` pixels, and the boxes with them.

    Args:
        keys: images (3, H, W).
        size: pixels.
    """

    def __init__(self, keys: KeysCollection, size: int) -> None:
        super().__init__(keys)
        self.size = int(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the resized case."""
        case = dict(data)
        for key in self.key_iterator(case):
            before = case[key].shape[-2:]
            case[key] = fit_longest_side(case[key], self.size)
            case["boxes"] = scale_boxes(case["boxes"], before, case[key].shape[-2:])
        return case


class RandFlipBoxesd(MapTransform, RandomizableTransform):
    """Flip photographs and their boxes now and then.

    Args:
        keys: images (3, H, W).
        prob: how often.
        axis: 0 top to bottom, 1 left to right.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.5, axis: int = 1) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.axis = axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case, flipped or as it is."""
        case = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in self.key_iterator(case):
                case["boxes"] = flip_boxes(case["boxes"], case[key].shape[-2:], self.axis)
                case[key] = case[key].flip(self.axis - 2)
        return case


class RandQuarterTurnBoxesd(MapTransform, RandomizableTransform):
    """Turn photographs and their boxes by 90, 180 or 270 degrees now and then: an endoscope knows no upright.

    Args:
        keys: images (3, H, W).
        prob: how often.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.5) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.turns = 0

    def randomize(self, data: Any = None) -> None:
        """Draw whether, and how far, the next case is turned."""
        super().randomize(None)
        self.turns = int(self.R.randint(1, 4))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case, turned or as it is."""
        case = dict(data)
        self.randomize()
        if self._do_transform:
            for key in self.key_iterator(case):
                case["boxes"] = rotate_boxes(case["boxes"], case[key].shape[-2:], self.turns)
                case[key] = torch.rot90(case[key], self.turns, (-2, -1)).contiguous()
        return case


class RandScaleBoxesd(MapTransform, RandomizableTransform):
    """Show photographs larger (cut at random) or smaller (on black, anywhere) within their own size.

    Args:
        keys: images (3, H, W).
        prob: how often.
        scale: smallest and largest factor; drawn evenly on a logarithmic scale.
        visible_share: a box of which less than this share stays in the picture is dropped.

    Raises:
        DataError: for a range that is not positive and rising.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, scale: Sequence[float] = (0.7, 1.5), visible_share: float = 0.2
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if not 0 < scale[0] <= scale[1]:
            raise DataError(f"the scale {list(scale)} is no range: give the smallest factor, then the largest.")
        self.logarithms = torch.tensor(scale, dtype=torch.float64).log().tolist()
        self.visible_share = visible_share
        self.factor, self.place = 1.0, (0.0, 0.0)

    def randomize(self, data: Any = None) -> None:
        """Draw whether, by how much, and where in the range of places the next case is scaled."""
        super().randomize(None)
        self.factor = float(torch.tensor(self.R.uniform(*self.logarithms)).exp())
        self.place = (float(self.R.uniform()), float(self.R.uniform()))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case, scaled or as it is."""
        case = dict(data)
        self.randomize()
        if self._do_transform:
            for key in self.key_iterator(case):
                self._scale(case, key)
        return case

    def _scale(self, case: dict[Hashable, Any], key: Hashable) -> None:
        image = case[key]
        before = image.shape[-2:]
        after = [max(1, round(n * self.factor)) for n in before]
        top, left = (round((n - m) * share) for n, m, share in zip(before, after, self.place, strict=True))
        case[key] = _laid_down(functional.resize_image(image, after, antialias=True), before, top, left)
        boxes, kept = clip_boxes(scale_boxes(case["boxes"], before, after, (top, left)), before, self.visible_share)
        case["boxes"], case["labels"] = boxes[kept], case["labels"][kept]


def _laid_down(image: Tensor, size: Sequence[int], top: int, left: int) -> Tensor:
    """An image on a black canvas of ``size``; what reaches beyond the canvas is cut."""
    canvas = image.new_zeros((image.shape[0], *size))
    rows, columns = slice(max(top, 0), top + image.shape[1]), slice(max(left, 0), left + image.shape[2])
    shown = image[:, max(-top, 0) : max(-top, 0) + size[0], max(-left, 0) : max(-left, 0) + size[1]]
    canvas[:, rows, columns] = shown
    return canvas
