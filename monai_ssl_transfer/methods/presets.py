"""Numbers of a method that depend on how many images there are to learn from."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

SMALL, LARGE = 20_000, 1_281_167
"""Up to `SMALL` images the small-data value holds, from `LARGE` (ImageNet-1k) on the published one."""

PROTOTYPES = ((20_000, 1024), (50_000, 2048), (100_000, 4096), (200_000, 16384), (500_000, 32768))
"""Prototypes of DINO and DINOv2 up to so many images; 65,536, the published number, above all of them.

The thresholds, and that momentum starts at 0.99 and the teacher's temperature at 0.02 and both grow linearly with the
images between `SMALL` and `LARGE`, are LightlyTrain's for both methods (version 0.18, https://docs.lightly.ai/train).
Where they end is what the papers have, which differs from LightlyTrain's (0.996 and 0.07 for both).
"""
PUBLISHED_PROTOTYPES = 65_536
PUBLISHED_QUEUE = 65_536
QUEUE_SHARE = 4
"""A queue of MoCo v2 holds at most a quarter of the images, so that a key's own image has left it before it comes
again. The quarter, and its momentum of 0.99 on small data, are ours."""


@dataclass(frozen=True)
class _Published:
    """Published values of a method for large data, and those for small data between which is interpolated."""

    momentum: float
    small_momentum: float = 0.99
    temperature: float | None = None
    small_temperature: float = 0.02
    prototypes: bool = False
    queue: bool = False


_METHODS = {
    "moco_v2": _Published(momentum=0.999, queue=True),  # arXiv 2003.04297
    "moco_v3": _Published(momentum=0.99),  # arXiv 2104.02057: on ImageNet already the value for small data
    "dino": _Published(momentum=0.996, temperature=0.04, prototypes=True),  # arXiv 2104.14294
    "dinov2": _Published(momentum=0.992, temperature=0.07, prototypes=True),  # arXiv 2304.07193
}


@dataclass(frozen=True)
class Preset:
    """Numbers for one method and one number of images; None where the method has no such number.

    Args:
        images: to learn from.
        prototypes: output dimensions of the heads of DINO and DINOv2.
        teacher_temperature: of DINO and DINOv2, after its warm-up.
        momentum: of the momentum encoder (at the start, where it rises).
        queue_size: keys in MoCo v2's queue.
    """

    images: int
    prototypes: int | None = None
    teacher_temperature: float | None = None
    momentum: float | None = None
    queue_size: int | None = None


def preset(method: str, images: int) -> Preset:
    """Choose a method's numbers by the number of images, and log them.

    Args:
        method: name of an overlay in `configs/methods`; methods without a momentum encoder have nothing to choose.
        images: to learn from, at least 1.

    Returns:
        The published values for large data (`LARGE` images), others below.

    Raises:
        TrainingError: when there are no images.
    """
    if images < 1:
        raise TrainingError(f"There are no images to choose the numbers of {method} by; look at --dataset_dir.")
    published = _METHODS.get(method)
    if published is None:
        return Preset(images)
    small, large = published.small_temperature, published.temperature
    chosen = Preset(
        images,
        prototypes=_prototypes(images) if published.prototypes else None,
        teacher_temperature=None if large is None else _between(images, small, large, 3),
        momentum=_between(images, published.small_momentum, published.momentum, 4),
        queue_size=max(1, min(PUBLISHED_QUEUE, images // QUEUE_SHARE)) if published.queue else None,
    )
    _log(method, chosen)
    return chosen


def _prototypes(images: int) -> int:
    return next((count for most, count in PROTOTYPES if images <= most), PUBLISHED_PROTOTYPES)


def _between(images: int, small: float, large: float, digits: int) -> float:
    """Linear in the number of images between `SMALL` and `LARGE`."""
    share = min(max((images - SMALL) / (LARGE - SMALL), 0.0), 1.0)
    return round(small + share * (large - small), digits)


def _log(method: str, chosen: Preset) -> None:
    numbers = [(name.replace("_", " "), value) for name, value in asdict(chosen).items() if name != "images"]
    text = ", ".join(f"{name} {value:,}" for name, value in numbers if value is not None)
    logger.info("%s with %s images, where nothing else is given: %s", method, f"{chosen.images:,}", text)
