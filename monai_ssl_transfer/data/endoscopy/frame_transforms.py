"""MONAI transforms of frames: load, fit into a square and back, random colour, values for ImageNet encoders."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import ensure_tuple_rep
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as colour

from monai_ssl_transfer.data.endoscopy.frames import frame_size, read_frame, read_mask
from monai_ssl_transfer.data.endoscopy.normalisation import normalise_frames
from monai_ssl_transfer.errors import DataError

# "nearest" of torch takes the pixel above and left of the centre; "nearest-exact" lies on the same grid as "bilinear".
_MODES = {"bilinear": InterpolationMode.BILINEAR, "nearest": InterpolationMode.NEAREST_EXACT}


class Place(NamedTuple):
    """Where in a square a letterboxed frame lies, in pixels.

    Args:
        rows: height of the frame before.
        columns: width of the frame before.
        top: first row of the frame within the square.
        left: first column of the frame within the square.
        height: rows of the frame within the square.
        width: columns of the frame within the square.
        size: side of the square.
    """

    rows: int
    columns: int
    top: int
    left: int
    height: int
    width: int
    size: int


def letterbox_place(rows: int, columns: int, size: int) -> Place:
    """Where a frame of ``rows`` x ``columns`` comes to lie in a square of side ``size``: aspect kept, centred."""
    scale = size / max(rows, columns)
    height, width = (max(1, round(n * scale)) for n in (rows, columns))
    return Place(rows, columns, (size - height) // 2, (size - width) // 2, height, width, size)


def letterbox(image: torch.Tensor, size: int, mode: str = "bilinear") -> tuple[torch.Tensor, Place]:
    """Fit a frame or a mask into a square: aspect kept, centred on zeros.

    Args:
        image: (..., C, H, W), uint8 or floating point.
        size: side of the square in pixels.
        mode: "bilinear" (with antialias) for frames, "nearest" for masks.

    Returns:
        (..., C, size, size) of the same type, and the place of the frame in it.

    Raises:
        DataError: unknown ``mode``.
    """
    if mode not in _MODES:
        raise DataError(f"letterbox knows no mode {mode!r}: give one of {sorted(_MODES)}")
    place = letterbox_place(image.shape[-2], image.shape[-1], size)
    inner = [place.height, place.width]
    fitted = colour.resize_image(image, inner, interpolation=_MODES[mode], antialias=mode == "bilinear")
    below, right = size - place.top - place.height, size - place.left - place.width
    return functional.pad(fitted, (place.left, right, place.top, below)), place


def undo_letterbox(x: torch.Tensor, place: Place | torch.Tensor) -> torch.Tensor:
    """Bring a network's output in the square back onto the frame: padding cut off, bilinear to the frame's size.

    Args:
        x: (..., C, size, size) floating point, e.g. logits.
        place: what `letterbox` returned, or ``letterbox`` of a case.

    Returns:
        (..., C, rows, columns) of the same type.

    Raises:
        DataError: ``x`` is no square of the place's side.
    """
    rows, columns, top, left, height, width, size = (int(n) for n in place)
    if tuple(x.shape[-2:]) != (size, size):
        raise DataError(f"{tuple(x.shape[-2:])} pixels are no letterbox of {size} x {size}: give the network's output")
    inner = x[..., top : top + height, left : left + width]
    batch = inner.reshape(-1, *inner.shape[-3:])
    native = functional.interpolate(batch, (rows, columns), mode="bilinear", align_corners=False)
    return native.reshape(*inner.shape[:-2], rows, columns)


class LoadFramed(MapTransform):
    """Read photographs; adds ``<key>_path``.

    Args:
        keys: keys with the path of a photograph, replaced by (3, H, W) uint8, upright.
        stretch: of 16-bit grey take the range that is used, not the high byte (`read_frame`).
        allow_missing_keys: pass over keys that a case does not have.
    """

    def __init__(self, keys: KeysCollection, stretch: bool = False, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.stretch = stretch

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its photographs read.

        Raises:
            DataError: a photograph cannot be read; names it.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            path = str(case[key])
            case[f"{key}_path"] = path
            case[key] = torch.from_numpy(read_frame(path, self.stretch).transpose(2, 0, 1).copy())
        return case


class LoadMaskd(MapTransform):
    """Read binary masks that lie on a photograph; adds ``<key>_path``.

    Args:
        keys: keys with the path of a mask, or with "" where the photograph is known to show nothing; replaced by
            (1, H, W) uint8 of 0 and 1.
        like: key of the photograph, a path or already read by `LoadFramed`.
        allow_missing_keys: pass over keys that a case does not have.
        ones: take lossless masks of 0 and 1, too (`read_mask`).
    """

    def __init__(
        self, keys: KeysCollection, like: str = "image", allow_missing_keys: bool = False, ones: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.like, self.ones = like, ones

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its masks read.

        Raises:
            DataError: a mask cannot be read or has another size than its photograph; names both.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            path, (size, photograph) = str(case[key]), self._photograph(case)
            mask = read_mask(path, self.ones) if path else np.zeros(size, dtype=bool)
            if mask.shape != size:
                raise DataError(_misfit(path, mask.shape, photograph, size))
            case[f"{key}_path"] = path
            case[key] = torch.from_numpy(mask.astype(np.uint8))[None]
        return case

    def _photograph(self, case: Mapping[Hashable, Any]) -> tuple[tuple[int, int], str]:
        """Upright size and name of the photograph."""
        frame = case[self.like]
        if isinstance(frame, torch.Tensor):
            return (int(frame.shape[-2]), int(frame.shape[-1])), str(case.get(f"{self.like}_path", "its photograph"))
        return frame_size(frame), str(frame)


def _misfit(path: str, mask: Sequence[int], photograph: str, size: Sequence[int]) -> str:
    turned = ", turned by 90 degrees (did a program ignore the EXIF orientation?)" if tuple(mask) == size[::-1] else ""
    return (
        f"{path} has {mask[0]} x {mask[1]} pixels and its photograph {photograph} {size[0]} x {size[1]}{turned}: "
        "give the mask that was drawn on this photograph"
    )


class Letterboxd(MapTransform):
    """Fit frames and their masks into a square; adds ``letterbox``, (7,) int64: the `Place` for `undo_letterbox`.

    A tensor, because MONAI's caches and PyTorch's collation take tuples with names apart.

    Args:
        keys: keys of (C, H, W) frames and masks of one size.
        size: side of the square in pixels.
        modes: "bilinear" for frames, "nearest" for masks; one for all keys or one for each.
        allow_missing_keys: pass over keys that a case does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int,
        modes: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size = int(size)
        self.modes = ensure_tuple_rep(modes, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its frames in squares.

        Raises:
            DataError: the keys hold pictures of different sizes.
        """
        case = dict(data)
        places = set()
        for key, mode in self.key_iterator(case, self.modes):
            case[key], place = letterbox(case[key], self.size, mode)
            places.add(place)
        if len(places) > 1:
            sizes = sorted(f"{place.rows} x {place.columns}" for place in places)
            raise DataError(f"{case.get('name', 'a case')} has pictures of {' and '.join(sizes)} pixels: load one size")
        if places:
            case["letterbox"] = torch.tensor(places.pop())
        return case


class RandColourJitterd(MapTransform, RandomizableTransform):
    """Random brightness, contrast, saturation and hue of frames, in random order; the same for all keys of a case.

    Args:
        keys: keys of (3, H, W) frames, uint8 or floating point of 0..255.
        prob: share of cases that are changed.
        brightness: factor from [1 - x, 1 + x].
        contrast: factor from [1 - x, 1 + x], around the mean grey of the frame.
        saturation: factor from [1 - x, 1 + x], around the grey picture.
        hue: shift from [-x, x] turns of the colour circle, x at most 0.5.
        allow_missing_keys: pass over keys that a case does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.factors = (brightness, contrast, saturation)
        self.hue = hue
        self._steps: list[tuple[Callable[..., torch.Tensor], float]] = []

    def randomize(self, data: Any = None) -> None:
        """Draw whether, in which order and how much the next case is changed."""
        super().randomize(None)
        draws = [max(0.0, self.R.uniform(1 - x, 1 + x)) for x in self.factors] + [self.R.uniform(-self.hue, self.hue)]
        steps = list(zip(_ADJUSTMENTS, draws, strict=True))
        self._steps = [steps[i] for i in self.R.permutation(len(steps))]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with other colours."""
        case = dict(data)
        self.randomize()
        for key in self.key_iterator(case):
            if self._do_transform:
                case[key] = _jittered(case[key], self._steps)
        return case


_ADJUSTMENTS: tuple[Callable[..., torch.Tensor], ...] = (
    colour.adjust_brightness_image,
    colour.adjust_contrast_image,
    colour.adjust_saturation_image,
    colour.adjust_hue_image,
)


def _jittered(frame: torch.Tensor, steps: Sequence[tuple[Callable[..., torch.Tensor], float]]) -> torch.Tensor:
    # In floating point (0..1 for torchvision): on uint8 it cuts off after each step, which darkens the frame.
    jittered = frame.to(torch.float32) / 255
    for adjust, amount in steps:
        jittered = adjust(jittered, amount)
    jittered = jittered * 255
    return jittered.to(frame.dtype) if frame.is_floating_point() else jittered.round().to(frame.dtype)


class NormaliseFramed(MapTransform):
    """Bring frames to the range of ImageNet encoders: (3, H, W) uint8, or floating point of 0..255, to float32.

    Args:
        keys: keys of the frames.
        channels: 3; or 1 for networks of one channel, which get the mean of the three normalised channels.
        allow_missing_keys: pass over keys that a case does not have.
    """

    def __init__(self, keys: KeysCollection, channels: int = 3, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with normalised frames."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = normalise_frames(case[key], self.channels)
        return case
