"""How long a run is: in epochs, or in images."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Protocol

from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

_CANDIDATES = 64
_PERIODS = 20
_LEAST_STEPS = 10


class ShortenedSampler(Protocol):
    """A batch sampler whose epochs can be made shorter."""

    batch_size: int

    def __len__(self) -> int: ...

    def shorten(self, batches: int) -> None:
        """Let an epoch have fewer batches."""


@dataclass(frozen=True)
class RunLength:
    """The length of a run.

    Args:
        epochs: number of epochs.
        steps_per_epoch: optimizer steps of each.
    """

    epochs: int
    steps_per_epoch: int


def run_length(sampler: ShortenedSampler, epochs: int, total_images: float | None = None) -> RunLength:
    """Give a run its length; one in images shortens the sampler's epochs so that they are equal and add up to it.

    An epoch is then at most a pass over the data, usually a little less: the rest of a pass is left out, another rest
    in every epoch. A run of fewer passes than 20 has at least 20 epochs, each a part of a pass, so that it is measured,
    saved and exported on its way; fewer where they would have fewer than 10 steps. Where the number of steps misses the
    wanted one by more than 1 % (in short runs), epochs are as short as half of that if that comes nearer. The log says
    what was wanted and what it is.

    Args:
        sampler: of the whole batches (all processes); its epochs are shortened where needed.
        epochs: used where `total_images` is None.
        total_images: images seen in the whole run, each as often as it is seen.

    Raises:
        TrainingError: when the run would have no step.
    """
    if total_images is None:
        return RunLength(int(epochs), len(sampler))
    wanted = total_images / sampler.batch_size
    if round(wanted) < 1:
        raise TrainingError(
            f"--total_images {total_images:g} are fewer than one batch of {sampler.batch_size}; raise it or lower "
            "--batch_size."
        )
    length = _equal_epochs(round(wanted), len(sampler))
    sampler.shorten(length.steps_per_epoch)
    steps = length.epochs * length.steps_per_epoch
    logger.info(
        "%s images at %d per step are %.1f steps: %d epochs of %d steps, %s images",
        f"{total_images:,.0f}",
        sampler.batch_size,
        wanted,
        length.epochs,
        length.steps_per_epoch,
        f"{steps * sampler.batch_size:,}",
    )
    return length


def _equal_epochs(steps: int, longest: int) -> RunLength:
    """Epochs of one length, none longer than a pass, with about so many steps altogether."""
    fewest = math.ceil(steps / longest)
    parts = max(1, math.ceil(min(_PERIODS, steps // _LEAST_STEPS) / fewest))  # of a pass
    candidates = [passes * parts for passes in range(fewest, fewest + min(fewest, _CANDIDATES) + 1)]
    lengths = [RunLength(epochs, max(1, round(steps / epochs))) for epochs in candidates]
    misses = [abs(one.epochs * one.steps_per_epoch - steps) for one in lengths]
    near = next((place for place, miss in enumerate(misses) if miss <= 0.01 * steps), misses.index(min(misses)))
    return lengths[near]
