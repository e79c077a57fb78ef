"""What a network found in photographs, written as one PNG file per photograph that lies on it in every program."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_ssl_transfer.data.endoscopy.frames import write_grey16, write_mask
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

MASK_SUFFIX = "_mask.png"
PROBABILITY_SUFFIX = "_probability.png"


def with_output_paths(
    cases: Sequence[Mapping[str, Any]],
    output_dir: str | Path,
    suffixes: Sequence[str] = (MASK_SUFFIX, PROBABILITY_SUFFIX),
) -> list[dict[str, Any]]:
    """Name the output of every photograph after its path below the folder that was given.

    Args:
        cases: as `photographs` lists them: "image" and "relative".
        output_dir: folder of the outputs; sub-folders of the photographs are kept.
        suffixes: ends of the files that will be written.

    Returns:
        The cases with "output": path without suffix (`WriteMaskd` adds ``_mask.png``).

    Raises:
        DataError: an output would replace a photograph, or the photographs are outputs of an earlier run.
    """
    named = [{**case, "output": str(Path(output_dir) / case["relative"])} for case in cases]
    sources = {Path(case["image"]).resolve() for case in named}
    for case in named:
        for suffix in suffixes:
            if Path(case["output"] + suffix).resolve() in sources:
                raise DataError(
                    f"the output of {case['image']} would replace {case['output'] + suffix}, which is itself among "
                    "the photographs: name another output_dir, outside their folder."
                )
    _refuse_own_outputs(named, Path(output_dir).resolve(), suffixes)
    return named


def _refuse_own_outputs(cases: Sequence[Mapping[str, Any]], output_dir: Path, suffixes: Sequence[str]) -> None:
    """Predictions on the outputs of an earlier run, where these lie below the photographs, would pass for results."""
    alike = [case for case in cases if case["image"].endswith(tuple(suffixes))]
    for case in alike:
        if Path(case["image"]).resolve().is_relative_to(output_dir):
            raise DataError(
                f"{case['image']} lies in the output_dir and is named as an output of an earlier run: name an "
                "output_dir outside the folder of the photographs, or remove the earlier outputs."
            )
    if alike:
        logger.warning(
            "%d photographs end in one of %s, as outputs do (such as %s): they are predicted on all the same",
            len(alike),
            ", ".join(suffixes),
            alike[0]["image"],
        )


class WriteMaskd(MapTransform):
    """MONAI transform: write a label map as ``<output>_mask.png`` of the photograph's size and EXIF orientation.

    Args:
        keys: (1, H, W) label maps at the native size of the upright photograph.
        classes: with 2 the mask is written as 0 and 255; with more the labels are written as they are.
        photograph: item with the path of the photograph.
        output: item with the path of the output, without suffix.
        suffix: end of the file's name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: int = 2,
        photograph: str = "image_path",
        output: str = "output",
        suffix: str = MASK_SUFFIX,
    ) -> None:
        super().__init__(keys)
        self.classes = classes
        self.photograph = photograph
        self.output = output
        self.suffix = suffix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the file of one photograph; the item stays as it is."""
        item = dict(data)
        for key in self.key_iterator(item):
            labels = _plane(item[key], 0)
            mask = labels > 0 if self.classes == 2 else labels.astype(np.uint8)
            write_mask(f"{item[self.output]}{self.suffix}", mask, item[self.photograph])
        return item


class WriteProbabilityd(MapTransform):
    """MONAI transform: write the probability of one class as ``<output>_probability.png``, 16 bits, 65535 meaning 1.

    Args:
        keys: (C, H, W) probabilities at the native size of the upright photograph.
        channel: class that is written.
        photograph: item with the path of the photograph.
        output: item with the path of the output, without suffix.
    """

    def __init__(
        self, keys: KeysCollection, channel: int = 1, photograph: str = "image_path", output: str = "output"
    ) -> None:
        super().__init__(keys)
        self.channel = channel
        self.photograph = photograph
        self.output = output

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the file of one photograph; the item stays as it is."""
        item = dict(data)
        for key in self.key_iterator(item):
            values = np.rint(_plane(item[key], self.channel).clip(0, 1) * 65535).astype(np.uint16)
            write_grey16(f"{item[self.output]}{PROBABILITY_SUFFIX}", values, item[self.photograph])
        return item


def _plane(image: Any, channel: int) -> np.ndarray:
    """One channel of (C, H, W), meta tensor or not."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    return plain[channel].detach().cpu().numpy()
