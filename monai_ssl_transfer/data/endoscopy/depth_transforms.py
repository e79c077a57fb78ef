"""Depth maps: C3VD's files in, relative depth of a network out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from PIL import Image
from torch import Tensor

from monai_ssl_transfer.data.endoscopy.frames import UNREADABLE, frame_size, write_grey16
from monai_ssl_transfer.errors import DataError

DEPTH_UNIT_MM = 100.0
"""The unit of depth within the package, mm: C3VD's 0 to 65535 stand for 0 to 100 mm, so that all depth lies in 0..1."""

LARGEST = 65535
RELATIVE_SUFFIX = "_depth.png"
_BITS16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_depth(path: str | Path) -> np.ndarray:
    """Read a 16-bit depth map.

    Args:
        path: TIFF or PNG file of one 16-bit channel; 65535 stands for 100 mm, 0 for unknown.

    Returns:
        (rows, columns) float32 in units of 100 mm.

    Raises:
        DataError: no such file, no picture, a damaged one, or one of other pixels.
    """
    file = Path(path)
    try:
        with Image.open(file, formats=("TIFF", "PNG")) as image:
            mode = image.mode
            values = np.asarray(image)
    except FileNotFoundError as error:
        raise DataError(f"there is no depth map {file}: check the path.") from error
    except UNREADABLE as error:
        raise DataError(
            f"{file} cannot be read as a depth map ({error}): restore the file or remove its frame."
        ) from error
    if mode not in _BITS16 or values.min(initial=0) < 0 or values.max(initial=0) > LARGEST:
        raise DataError(f"{file} holds {mode} pixels where a depth map has one channel of 16 bits: restore the file.")
    return values.astype(np.float32) / LARGEST


class LoadDepthd(MapTransform):
    """Read depth maps that lie on a photograph.

    Args:
        keys: paths of depth maps.
        to: item that gets (1, H, W) float32 in units of 100 mm, 0 where it is unknown.
        like: the photograph, a path or already read.
    """

    def __init__(self, keys: KeysCollection = "depth", to: str = "label", like: str = "image") -> None:
        super().__init__(keys)
        self.to = to
        self.like = like

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its depth.

        Raises:
            DataError: a map cannot be read or has another size than its photograph; names both.
        """
        case = dict(data)
        for key in self.key_iterator(case):
            depth = read_depth(case[key])
            frame = case[self.like]
            size = tuple(frame.shape[-2:]) if isinstance(frame, Tensor) else frame_size(frame)
            if depth.shape != size:
                name = case.get(f"{self.like}_path", frame if isinstance(frame, str) else "its photograph")
                raise DataError(
                    f"{case[key]} has {depth.shape[0]} x {depth.shape[1]} pixels and {name} {size[0]} x {size[1]}: "
                    "give the depth map of this photograph."
                )
            case[self.to] = torch.from_numpy(depth)[None]
        return case


def relative_depth(prediction: np.ndarray) -> np.ndarray:
    """Stretch a network's depth over 16 bits: 0 is the nearest pixel of this photograph and 65535 the farthest.

    Args:
        prediction: (rows, columns) float, larger is farther; any scale and shift.

    Returns:
        (rows, columns) uint16; all 0 for a constant.

    Raises:
        DataError: the prediction is not finite.
    """
    if not np.isfinite(prediction).all():
        raise DataError("a predicted depth map holds values that are not finite: use another model_file.")
    values = prediction.astype(np.float64) - float(prediction.min(initial=np.inf))
    spread = float(values.max(initial=0.0))
    return np.rint(values / spread * LARGEST if spread > 0 else values * 0).astype(np.uint16)


class WriteRelativeDepthd(MapTransform):
    """Write relative depth as ``<output>_depth.png``, 16 bits, of the photograph's size and EXIF orientation.

    Args:
        keys: (1, H, W) predictions at the native size of the upright photograph.
        photograph: item with the path of the photograph.
        output: item with the path of the output, without suffix.
    """

    def __init__(self, keys: KeysCollection, photograph: str = "image_path", output: str = "output") -> None:
        super().__init__(keys)
        self.photograph = photograph
        self.output = output

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the file of one photograph; the item stays as it is."""
        item = dict(data)
        for key in self.key_iterator(item):
            plane = np.asarray(torch.as_tensor(item[key])[0].detach().cpu())
            write_grey16(f"{item[self.output]}{RELATIVE_SUFFIX}", relative_depth(plane), item[self.photograph])
        return item
