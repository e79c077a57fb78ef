"""Learning rate and weight decay per iteration, as functions of the progress through training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

from ignite.engine import Events
from torch.optim import Optimizer

from monai_ssl_transfer.engines.pretraining import PretrainingTrainer

logger = logging.getLogger(__name__)

REFERENCE_BATCH = 256


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from ``start`` to ``end`` (Loshchilov and Hutter 2017, equation 5).

    Args:
        progress: 0 at the start, 1 at the end.
    """
    return end + (start - end) * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2.0


def cosine_with_warmup(progress: float, peak: float, end: float = 0.0, warmup: float = 0.0) -> float:
    """Rise in a straight line from 0 to ``peak`` during ``warmup``, then fall along half a cosine to ``end``.

    Args:
        progress: 0 at the start, 1 at the end.
        warmup: fraction of training, in [0, 1).
    """
    if progress < warmup:
        return peak * progress / warmup
    return cosine((progress - warmup) / (1.0 - warmup), peak, end)


def scaled_learning_rate(reference: float, global_batch: int) -> float:
    """The linear rule: ``reference`` is the learning rate at a global batch of 256 (Goyal et al. 2017)."""
    return reference * global_batch / REFERENCE_BATCH


@dataclass(frozen=True)
class CosineOptions:
    """What a cosine schedule needs.

    Args:
        reference_lr: learning rate at a global batch of 256.
        final_lr: learning rate at the end, at a global batch of 256.
        warmup_epochs: epochs of linear warm-up; never more than a tenth of training is spent on it.
        weight_decay: at the start.
        final_weight_decay: at the end; default the same as at the start.
    """

    reference_lr: float
    final_lr: float = 0.0
    warmup_epochs: float = 10.0
    weight_decay: float = 0.0
    final_weight_decay: float | None = None


class CosineScheduleHandler:
    """Sets learning rate and weight decay before every iteration; it has no state, so a resumed run cannot drift.

    Args:
        optimizer: groups whose weight decay is 0 when training starts keep 0.
        options: the schedule.
        batch_size: slices per optimizer step over all processes, accumulation included.
    """

    def __init__(self, optimizer: Optimizer, options: CosineOptions, batch_size: int) -> None:
        self.optimizer = optimizer
        self.options = options
        self.batch_size = batch_size
        self._with_decay = [group["weight_decay"] > 0 for group in optimizer.param_groups]

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.STARTED, self.announce)
        engine.add_event_handler(Events.ITERATION_STARTED, self.apply)

    def announce(self, engine: PretrainingTrainer) -> None:
        """Say the learning rate and how it came about."""
        logger.info(
            "learning rate %g = %g x %d/%d (reference x global batch / %d), %g warm-up epochs, then a cosine to %g",
            scaled_learning_rate(self.options.reference_lr, self.batch_size),
            self.options.reference_lr,
            self.batch_size,
            REFERENCE_BATCH,
            REFERENCE_BATCH,
            self._warmup(engine) * (engine.state.max_epochs or 1),
            scaled_learning_rate(self.options.final_lr, self.batch_size),
        )

    def apply(self, engine: PretrainingTrainer) -> None:
        """Set both values for the iteration that starts."""
        options, total = self.options, engine.state.max_epochs * engine.state.epoch_length
        progress = (engine.state.iteration - 1) / total
        warmup = self._warmup(engine)
        # the first step of a warm-up from exactly 0 would be wasted: a step uses the rate at its end
        shown = min(progress + 1.0 / total, 1.0) if progress < warmup else progress
        rate = cosine_with_warmup(shown, options.reference_lr, options.final_lr, warmup)
        end = options.weight_decay if options.final_weight_decay is None else options.final_weight_decay
        decay = cosine(progress, options.weight_decay, end)
        for group, with_decay in zip(self.optimizer.param_groups, self._with_decay, strict=True):
            group["lr"] = scaled_learning_rate(rate, self.batch_size)
            if with_decay:
                group["weight_decay"] = decay

    def _warmup(self, engine: PretrainingTrainer) -> float:
        return min(self.options.warmup_epochs / max(engine.state.max_epochs, 1), 0.1)


def rates(optimizer: Optimizer) -> Iterable[tuple[str, float]]:
    """The current learning rate and the largest weight decay, by name."""
    yield "learning_rate", float(optimizer.param_groups[0]["lr"])
    yield "weight_decay", max(float(group["weight_decay"]) for group in optimizer.param_groups)
