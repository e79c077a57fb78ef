"""Learning rate and weight decay per iteration, as functions of the progress through training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

import ignite.distributed as idist
from ignite.engine import Events
from lightly.utils.lars import LARS
from torch.optim import Optimizer

from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

RULES = ("linear", "sqrt")


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


def scaled_learning_rate(
    reference: float, global_batch: int, rule: str = "linear", reference_batch: int = 256
) -> float:
    """The learning rate at a batch, from that at a reference batch.

    Args:
        reference: learning rate at the reference batch.
        global_batch: images per optimizer step over all processes.
        rule: "linear" (Goyal et al. 2017, arXiv 1706.02677) or "sqrt", the root of the ratio (Krizhevsky 2014,
            arXiv 1404.5997; DINOv2 uses it with AdamW).
        reference_batch: images per step to which ``reference`` belongs.
    """
    ratio = global_batch / reference_batch
    return reference * (ratio if rule == "linear" else math.sqrt(ratio))


@dataclass(frozen=True)
class CosineOptions:
    """What a cosine schedule needs.

    Args:
        reference_lr: learning rate at the reference batch.
        final_lr: learning rate at the end, at the reference batch.
        warmup_epochs: epochs of linear warm-up.
        weight_decay: at the start.
        final_weight_decay: at the end; default the same as at the start.
        rule: "linear" or "sqrt": how the rates follow the batch.
        reference_batch: images per step to which the two rates belong.
        warmup_images: length of the warm-up in images, instead of in epochs.
        longest_warmup: no more than this fraction of training is spent on warm-up.

    Raises:
        TrainingError: for an unknown rule or a reference batch below 1.
    """

    reference_lr: float
    final_lr: float = 0.0
    warmup_epochs: float = 10.0
    weight_decay: float = 0.0
    final_weight_decay: float | None = None
    rule: str = "linear"
    reference_batch: int = 256
    warmup_images: float | None = None
    longest_warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise TrainingError(f"learning_rate_rule {self.rule!r} is unknown; choose one of {', '.join(RULES)}.")
        if self.reference_batch < 1:
            raise TrainingError(f"reference_batch must be 1 or more, not {self.reference_batch}.")


class CosineScheduleHandler:
    """Sets learning rate and weight decay before every iteration; it has no state, so a resumed run cannot drift.

    Args:
        optimizer: groups whose weight decay is 0 when training starts keep 0; a group's "lr_factor" (default 1)
            multiplies its learning rate.
        options: the schedule.
        batch_size: images per optimizer step over all processes.
        pieces: pieces in which a process puts its part of the batch through the network, for the announcement alone.
    """

    def __init__(self, optimizer: Optimizer, options: CosineOptions, batch_size: int, pieces: int = 1) -> None:
        self.optimizer = optimizer
        self.options = options
        self.batch_size = batch_size
        self.pieces = pieces
        self._with_decay = [group["weight_decay"] > 0 for group in optimizer.param_groups]

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.STARTED, self.announce)
        engine.add_event_handler(Events.ITERATION_STARTED, self.apply)

    def announce(self, engine: PretrainingTrainer) -> None:
        """Say the learning rate and how it came about.

        Raises:
            TrainingError: for LARS without weight decay, which lightly's would take as a wish not to adapt any layer.
        """
        options = self.options
        if isinstance(self.optimizer, LARS) and not any(self._with_decay):
            raise TrainingError("LARS without weight decay adapts no layer; give a small one, --weight_decay 1e-6.")
        ratio = f"{self.batch_size}/{options.reference_batch}"
        logger.info(
            "learning rate %g = %g x %s (%s rule; global batch %s), %g warm-up epochs%s, then a cosine to %g%s",
            self._scaled(options.reference_lr),
            options.reference_lr,
            ratio if options.rule == "linear" else f"sqrt({ratio})",
            options.rule,
            self._batch(),
            self._warmup(engine) * (engine.state.max_epochs or 1),
            self._cut(engine),
            self._scaled(options.final_lr),
            self._factors(),
        )

    def apply(self, engine: PretrainingTrainer) -> None:
        """Set both values for the iteration that starts."""
        options, total = self.options, engine.state.max_epochs * engine.state.epoch_length
        progress = (engine.state.iteration - 1) / total
        warmup = self._warmup(engine)
        # the first step of a warm-up from exactly 0 would be wasted: a step uses the rate at its end
        shown = min(progress + 1.0 / total, 1.0) if progress < warmup else progress
        rate = self._scaled(cosine_with_warmup(shown, options.reference_lr, options.final_lr, warmup))
        end = options.weight_decay if options.final_weight_decay is None else options.final_weight_decay
        decay = cosine(progress, options.weight_decay, end)
        for group, with_decay in zip(self.optimizer.param_groups, self._with_decay, strict=True):
            group["lr"] = rate * group.get("lr_factor", 1.0)
            if with_decay:
                group["weight_decay"] = decay

    def _scaled(self, reference: float) -> float:
        return scaled_learning_rate(reference, self.batch_size, self.options.rule, self.options.reference_batch)

    def _warmup(self, engine: PretrainingTrainer) -> float:
        """Warm-up as a fraction of training."""
        return min(self._wanted_warmup(engine), self.options.longest_warmup)

    def _wanted_warmup(self, engine: PretrainingTrainer) -> float:
        """The same before it is cut."""
        epochs, length = engine.state.max_epochs or 1, engine.state.epoch_length or 1
        if self.options.warmup_images is not None:
            return self.options.warmup_images / (epochs * length * self.batch_size)
        return self.options.warmup_epochs / epochs

    def _cut(self, engine: PretrainingTrainer) -> str:
        wanted, longest = self._wanted_warmup(engine), self.options.longest_warmup
        if wanted <= longest:
            return ""
        epochs = wanted * (engine.state.max_epochs or 1)
        return f" ({epochs:g} were asked for, but longest_warmup is {longest:g} of the run)"

    def _batch(self) -> str:
        """The global batch and what it is made of."""
        count = idist.get_world_size()
        share, processes = self.batch_size // count, f"{count} process{'es' if count > 1 else ''}"
        if share % self.pieces:
            return f"{self.batch_size} = {processes} x {share} images, in {self.pieces} pieces each"
        return f"{self.batch_size} = {processes} x {share // self.pieces} images x {self.pieces} pieces"

    def _factors(self) -> str:
        """What learns at another rate."""
        weights: set[float] = set()
        others: set[float] = set()
        for group in self.optimizer.param_groups:
            large = any(parameter.ndim > 1 for parameter in group["params"])
            (weights if large else others).add(group.get("lr_factor", 1.0))
        said = [
            f"; {what} at {' to '.join(f'{one:g}' for one in sorted({min(found), max(found)}))} times this"
            for what, found in (
                ("the encoder's entrance and layers", weights - {1.0}),
                ("biases and norms", others - weights - {1.0}),
            )
            if found
        ]
        return "".join(said)


def rates(optimizer: Optimizer) -> Iterable[tuple[str, float]]:
    """The current learning rate and the largest weight decay, by name."""
    yield "learning_rate", float(optimizer.param_groups[0]["lr"])
    yield "weight_decay", max(float(group["weight_decay"]) for group in optimizer.param_groups)
