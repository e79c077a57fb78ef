"""The images of a task as one encoder wants them: the bundle's own preprocessing with the encoder's normalisation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from monai.bundle.reference_resolver import ReferenceResolver
from monai.transforms import Compose, MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_ssl_transfer.data.endoscopy.frame_transforms import NormaliseFramed
from monai_ssl_transfer.data.labelled_slices import LabelledSliceDataset
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.task_cases import TaskCases, TaskPart
from monai_ssl_transfer.views.windows import HUToChannelsd

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

PREPROCESSING = "validate#preprocessing"
_TOUCH_NO_PIXEL = ("DeleteItemsd", "CopyItemsd", "SelectItemsd")


class TaskImages(Dataset):
    """Images of one part, each (C, H, W) float32, without any randomness.

    Args:
        cases: of the task.
        part: whose images these are.
        transform: the whole preprocessing.
        channels: that slices of a store are read for.
    """

    def __init__(self, cases: TaskCases, part: TaskPart, transform: Compose, channels: str) -> None:
        self.items: Any = part.items
        self.transform = transform
        self.from_store = cases.store is not None
        if cases.store is not None:
            self.items = LabelledSliceDataset(cases.store, part.items, transform, channels)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Tensor:
        """One image."""
        item: Any = self.items[position]
        image = item["image"] if self.from_store else self.transform(dict(item))["image"]  # type: ignore[index]
        found: Tensor = convert_to_tensor(image, dtype=torch.float32, track_meta=False)
        return found


class Normalised(MapTransform):
    """A module that turns images into an encoder's input, as a dictionary transform.

    Args:
        keys: of the images.
        to_channels: maps (..., C, H, W).
    """

    def __init__(self, keys: Any, to_channels: nn.Module) -> None:
        super().__init__(keys)
        self.to_channels = to_channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the images."""
        case = dict(data)
        for key in self.key_iterator(case):
            case[key] = self.to_channels(convert_to_tensor(case[key], track_meta=False))
        return case


def preprocessing_for(parser: ConfigParser, to_channels: nn.Module) -> Compose:
    """The bundle's validation preprocessing with the encoder's own normalisation in place of the bundle's.

    Args:
        parser: of the bundle.
        to_channels: the encoder's normalisation.

    Raises:
        DataError: the preprocessing has no step that normalises.
    """
    found = parser.get_parsed_content(PREPROCESSING)
    steps = list(found.transforms)
    places = [number for number, step in enumerate(steps) if isinstance(step, NormaliseFramed | HUToChannelsd)]
    if len(places) != 1:
        raise DataError(
            f"{PREPROCESSING} normalises {len(places)} times, so an encoder's own normalisation has no place: use "
            "NormaliseFramed or HUToChannelsd once."
        )
    steps[places[0]] = Normalised(steps[places[0]].keys, to_channels)
    return Compose(steps)


def preprocessing_text(parser: ConfigParser) -> Any:
    """The bundle's validation preprocessing as plain values, every reference resolved, steps on labels left out."""
    parser.parse()
    return _plain(parser, parser.get(PREPROCESSING))


def _plain(parser: ConfigParser, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(parser, one) for name, one in value.items() if name != "_desc_"}
    if isinstance(value, list | tuple):
        return [_plain(parser, one) for one in value if not _touches_no_pixel(one)]
    if isinstance(value, str) and value.startswith("@"):
        return _plain(parser, parser.get(value[1:]))
    if isinstance(value, str) and value.startswith("$"):
        ids = sorted(ReferenceResolver.match_refs_pattern(value))
        return {"expression": value, **{name: _plain(parser, parser.get(name)) for name in ids}}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _touches_no_pixel(step: Any) -> bool:
    return isinstance(step, Mapping) and str(step.get("_target_", "")).rpartition(".")[2] in _TOUCH_NO_PIXEL
