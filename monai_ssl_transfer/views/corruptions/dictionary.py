"""Corruptions as a MONAI dictionary transform, and the place where an evaluation of any bundle takes it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.corruptions.apply import corrupt_ct, corrupt_mr, corrupt_photograph
from monai_ssl_transfer.views.corruptions.severities import MR, PHOTOGRAPH, corruption


class Corruptiond(MapTransform):
    """Corrupt images of a case as they were read; the same case gives the same image in any order and process.

    Args:
        keys: items with (3, H, W) uint8 photographs; with (1, R, C, Z) volumes or (C, H, W) adjacent slices in HU; with
            (modalities, R, C, Z) MR volumes, not yet scaled.
        domain: "photograph", "ct" or "mr".
        corruption: name of a row of `severities.CORRUPTIONS`.
        severity: 1 to 5; 0 leaves the image as it is.
        identity: items whose values together name the image, such as "name"; paths differ between machines.
        seed: of the whole grid.
        spacing_key: item with the (row, column) spacing in mm of adjacent slices; volumes bring theirs along.
        allow_missing_keys: pass over keys that a case does not have.

    Raises:
        DataError: unknown domain, corruption or severity.
    """

    def __init__(
        self,
        keys: KeysCollection,
        domain: str,
        corruption: str,
        severity: int,
        identity: Sequence[str] = ("name",),
        seed: int = 0,
        spacing_key: str = "spacing",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.domain, self.name, self.severity = domain, corruption, int(severity)
        self.identity, self.seed, self.spacing_key = tuple(identity), seed, spacing_key
        _row(domain, corruption, self.severity)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its images corrupted.

        Raises:
            DataError: the case has no name, or the image a wrong shape.
        """
        case = dict(data)
        lacking = [one for one in self.identity if one not in case]
        if lacking:
            raise DataError(f"a case has no item '{lacking[0]}' that names its image: set 'identity' of Corruptiond.")
        name = "\0".join(_text(case[one]) for one in self.identity)
        for key in self.key_iterator(case):
            change = {PHOTOGRAPH: self._photograph, MR: self._modalities}.get(self.domain, self._scan)
            case[key] = change(case[key], name, case)
        return case

    def _photograph(self, image: Any, name: str, case: Mapping[Hashable, Any]) -> Tensor:
        frame = torch.as_tensor(image).numpy().transpose(1, 2, 0)
        found = corrupt_photograph(np.ascontiguousarray(frame), self.name, self.severity, name, self.seed)
        return _like(image, found.transpose(2, 0, 1))

    def _scan(self, image: Any, name: str, case: Mapping[Hashable, Any]) -> Tensor:
        array = torch.as_tensor(image).numpy()
        if array.ndim == 4 and len(array) == 1:
            slices, spacing = array[0].transpose(2, 0, 1), _volume_spacing(image)
        elif array.ndim == 3:
            rows, columns = (float(one) for one in case.get(self.spacing_key, (0.0, 0.0)))
            slices, spacing = array, (0.0, rows, columns)
        else:
            raise DataError(f"{name} has the shape {array.shape}: give (1, rows, columns, slices) or (C, H, W) of CT.")
        found = corrupt_ct(slices, self.name, self.severity, name, spacing, self.seed)
        return _like(image, found if array.ndim == 3 else found.transpose(1, 2, 0)[None])

    def _modalities(self, image: Any, name: str, case: Mapping[Hashable, Any]) -> Tensor:
        array = torch.as_tensor(image).numpy()
        if array.ndim != 4:
            raise DataError(f"{name} has the shape {array.shape}: give (modalities, rows, columns, slices) of MR.")
        spacing = _volume_spacing(image)
        found = [
            corrupt_mr(one.transpose(2, 0, 1), self.name, self.severity, f"{name}\0{number}", spacing, self.seed)
            for number, one in enumerate(array)
        ]
        return _like(image, np.stack(found).transpose(0, 2, 3, 1))


def corrupt_after(preprocessing: Compose, loaded_by: str | None, transform: Corruptiond) -> Compose:
    """Put a corruption into the transforms of a validation: after the image is read, before it is prepared.

    Args:
        preprocessing: of the bundle; it is left as it is.
        loaded_by: class name of the transform after which the image is as it was taken; None: it comes so.
        transform: the corruption.

    Raises:
        DataError: no such transform.
    """
    steps = list(preprocessing.transforms)
    names = [type(one).__name__ for one in steps]
    if loaded_by is not None and loaded_by not in names:
        raise DataError(
            f"the validation has no transform {loaded_by} (but {', '.join(names)}): choose the file of "
            "configs/robustness that fits the bundle."
        )
    place = 0 if loaded_by is None else len(names) - names[::-1].index(loaded_by)
    return Compose([*steps[:place], transform, *steps[place:]])


def _row(domain: str, name: str, severity: int) -> None:
    row = corruption(domain, name)
    if severity:
        row.at(severity)


def _text(value: Any) -> str:
    return str(value.item() if isinstance(value, Tensor) else value)


def _volume_spacing(image: Any) -> tuple[float, float, float]:
    """Spacing of slices, rows and columns of a (1, R, C, Z) volume; zeros where it does not say."""
    if not isinstance(image, MetaTensor):
        return 0.0, 0.0, 0.0
    rows, columns, slices = (float(one) for one in image.pixdim)
    return slices, rows, columns


def _like(image: Any, found: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(found))
    return MetaTensor(tensor).copy_meta_from(image) if isinstance(image, MetaTensor) else tensor
