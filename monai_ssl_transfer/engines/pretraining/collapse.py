"""Watch for collapse: embeddings or prototypes that no longer differ, or a loss stuck at that of a constant output."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch.nn import functional

from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

_FEWEST_CENTRED = 8


def embedding_spread(embedding: torch.Tensor) -> float:
    """Standard deviation of L2-normalised embeddings per dimension, in units of 1/sqrt(D).

    About 1 when the embeddings point everywhere, 0 when they are all the same (Chen and He 2021, figure 2).

    Args:
        embedding: (B, D).
    """
    unit = functional.normalize(embedding.float(), dim=1)
    return float(unit.std(dim=0, unbiased=False).mean()) * math.sqrt(embedding.shape[1])


def effective_rank(embedding: torch.Tensor, centred: bool = False) -> float:
    """Exponential of the entropy of the singular values, from 1 to min(B, D) (RankMe, Garrido et al. 2023).

    Args:
        embedding: (B, D).
        centred: take the mean away instead of normalising. That makes full rank of a constant with tiny noise, but it
            shows embeddings that differ along one line only, wherever that line is.
    """
    values = embedding.float()
    values = torch.linalg.svdvals(values - values.mean(dim=0) if centred else functional.normalize(values, dim=1))
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(torch.special.entr(share).sum()))


@dataclass(frozen=True)
class CollapseOptions:
    """When a run counts as collapsed and how long that is tolerated.

    A healthy run looks collapsed at first: a fresh encoder gives nearly equal embeddings, a fresh teacher one
    prototype, and both stay so while the learning rate warms up. Stopping such a run is worse than stopping a collapsed
    one late. Nothing is judged before ``warmup`` iterations and ``warmup_share`` of the run, and ``stop_after`` checks
    in a row must be bad.

    kNN accuracy is no such sign: it compares cosines, however close to 1 all of them are, and so still reads the small
    differences of embeddings that are nearly equal.

    The thresholds are far from what healthy runs have (a spread of 0.2 to 0.8, a rank of 3 and more even on a batch of
    tiny images), so that small batches and dull data do not reach them.

    Args:
        every: iterations between two checks.
        warmup: iterations before the first verdict.
        warmup_share: fraction of the run before the first verdict; learning rates warm up for about a tenth.
        least_spread: smallest healthy ``embedding_spread``. At 0.02 the cosine of any two embeddings is 0.9996.
        least_rank: smallest healthy ``effective_rank``; 1 is a line through 0.
        least_centred_rank: the same without the mean, asked for where the spread is healthy. With 32 dimensions, 1.5 is
            one direction and in each other one no more than 0.2 % of it.
        least_entropy: smallest healthy entropy in nats of a teacher that chose one prototype for all images of a batch:
            0.1 is a probability of 98 % for that one.
        loss_tolerance: relative distance within which the loss counts as stuck at the collapsed value.
        warn_after: bad checks in a row that give a warning.
        stop_after: bad checks in a row that stop the run; 0 never stops it.
    """

    every: int = 20
    warmup: int = 200
    warmup_share: float = 0.1
    least_spread: float = 0.02
    least_rank: float = 1.05
    least_centred_rank: float = 1.5
    least_entropy: float = 0.1
    loss_tolerance: float = 1e-3
    warn_after: int = 3
    stop_after: int = 25


@dataclass(frozen=True)
class _Measured:
    """What a check looks at: means over the processes."""

    spread: float
    rank: float
    centred_rank: float


class CollapseMonitor:
    """Warns about a collapsing run, then stops it; the figures are in ``engine.state.metrics`` as well.

    All processes judge the means of their figures, so that they stop together.

    Args:
        method: the ``SSLMethod``; its ``collapsed_loss`` (ln K, say) is the loss of a constant output, or ``None``. The
            scalars "teacher_entropy" and "teacher_prototypes" of its steps tell whether a teacher gives all images the
            same prototype, which its loss (near 0) and often its embeddings do not show.
        options: thresholds and patience.
    """

    def __init__(self, method: Any, options: CollapseOptions | None = None) -> None:
        self.method = method
        self.options = options or CollapseOptions()
        self.bad_checks = 0

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer, on every process."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.options.every), self.check)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.measure)

    def state_dict(self) -> dict[str, int]:
        """How many bad checks in a row there were."""
        return {"bad_checks": self.bad_checks}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting."""
        self.bad_checks = state["bad_checks"]

    def measure(self, engine: PretrainingTrainer) -> _Measured:
        """Put the figures of the current batch into the metrics, for the record of an epoch too."""
        embedding = engine.state.embedding
        if embedding is None or len(embedding) < 2:
            return _Measured(math.inf, math.inf, math.inf)
        # few points lie on one line for certain
        centred = effective_rank(embedding, centred=True) if len(embedding) >= _FEWEST_CENTRED else math.inf
        figures = [embedding_spread(embedding), effective_rank(embedding), centred]
        if idist.get_world_size() > 1:
            total = idist.all_reduce(torch.tensor(figures, device=engine.state.device))
            figures = (torch.as_tensor(total) / idist.get_world_size()).tolist()
        engine.state.metrics |= {"embedding_spread": figures[0], "effective_rank": figures[1]}
        return _Measured(*figures)

    def check(self, engine: PretrainingTrainer) -> None:
        """Look at the current batch.

        Raises:
            TrainingError: when the run has been collapsed for too long.
        """
        scalars = {name: float(value) for name, value in engine.state.output[0].items()}
        reason = self._embeddings(self.measure(engine)) or self._teacher(scalars) or self._loss(scalars["loss"])
        options, step = self.options, engine.state.iteration
        if reason is None or step <= options.warmup or engine.progress < options.warmup_share:
            self.bad_checks = 0
            return
        self.bad_checks += 1
        if self.bad_checks == options.warn_after:
            logger.warning("step %d: the run may be collapsing: %s", step, reason)
        if options.stop_after and self.bad_checks >= options.stop_after:
            raise TrainingError(
                f"Training was stopped at step {step} because the run has collapsed: {reason}; "
                "lower --learning_rate, use larger batches or another method, and start in a new --output_dir."
            )

    def _embeddings(self, found: _Measured) -> str | None:
        options = self.options
        if found.spread < options.least_spread:
            healthy = f"healthy is over {options.least_spread}"
            return f"all embeddings are nearly equal (spread {found.spread:.4f} of 1, {healthy})"
        for rank, least in ((found.rank, options.least_rank), (found.centred_rank, options.least_centred_rank)):
            if rank < least:
                return f"all embeddings lie on one line (effective rank {rank:.3f}, healthy is over {least})"
        return None

    def _teacher(self, scalars: Mapping[str, float]) -> str | None:
        entropy, prototypes = scalars.get("teacher_entropy", math.inf), scalars.get("teacher_prototypes", math.inf)
        if entropy >= self.options.least_entropy or prototypes > 1.0:
            return None
        return (
            f"the teacher gives all images the same prototype (entropy {entropy:.4f}, healthy is over "
            f"{self.options.least_entropy}), which a higher teacher temperature may prevent"
        )

    def _loss(self, loss: float) -> str | None:
        value = self.method.collapsed_loss
        if value is not None and abs(loss - value) < self.options.loss_tolerance * abs(value):
            return f"the loss {loss:.5f} is that of a constant output ({value:.5f})"
        return None
