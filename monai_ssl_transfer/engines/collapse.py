"""Watch for collapse: embeddings that no longer differ, or a loss stuck at the value of a constant output."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Events
from torch.nn import functional

from monai_ssl_transfer.engines.pretraining import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)


def embedding_spread(embedding: torch.Tensor) -> float:
    """Standard deviation of L2-normalised embeddings per dimension, in units of 1/sqrt(D).

    About 1 when the embeddings point everywhere, 0 when they are all the same (Chen and He 2021, figure 2).

    Args:
        embedding: (B, D).
    """
    unit = functional.normalize(embedding.float(), dim=1)
    return float(unit.std(dim=0, unbiased=False).mean()) * math.sqrt(embedding.shape[1])


def effective_rank(embedding: torch.Tensor) -> float:
    """Exponential of the entropy of the singular values, from 1 to min(B, D) (RankMe, Garrido et al. 2023).

    The embeddings are normalised but not centred: centring would turn a constant plus tiny noise into full rank.

    Args:
        embedding: (B, D).
    """
    values = torch.linalg.svdvals(functional.normalize(embedding.float(), dim=1))
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(torch.special.entr(share).sum()))


@dataclass(frozen=True)
class CollapseOptions:
    """When embeddings count as collapsed and how long that is tolerated.

    Args:
        every: iterations between two checks.
        warmup: iterations before the first check; fresh encoders give nearly equal embeddings.
        least_spread: smallest healthy ``embedding_spread``.
        least_rank: smallest healthy ``effective_rank``.
        loss_tolerance: relative distance within which the loss counts as stuck at the collapsed value.
        warn_after: bad checks in a row that give a warning.
        stop_after: bad checks in a row that stop the run; 0 never stops it.
    """

    every: int = 20
    warmup: int = 200
    least_spread: float = 0.02
    least_rank: float = 1.05
    loss_tolerance: float = 1e-3
    warn_after: int = 3
    stop_after: int = 25


class CollapseMonitor:
    """Warns about a collapsing run, then stops it; the figures are in ``engine.state.metrics`` as well.

    Args:
        method: the ``SSLMethod``; its ``collapsed_loss`` (ln K, say) is the loss of a constant output, or ``None``.
        options: thresholds and patience.
    """

    def __init__(self, method: Any, options: CollapseOptions | None = None) -> None:
        self.method = method
        self.options = options or CollapseOptions()
        self.bad_checks = 0

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.options.every), self.check)

    def state_dict(self) -> dict[str, int]:
        """How many bad checks in a row there were."""
        return {"bad_checks": self.bad_checks}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting."""
        self.bad_checks = state["bad_checks"]

    def check(self, engine: PretrainingTrainer) -> None:
        """Look at the current batch.

        Raises:
            TrainingError: when the run has been collapsed for too long.
        """
        spread, rank = self._measured(engine)
        reason = self._reason(spread, rank, float(engine.state.output[0]["loss"]))
        if engine.state.iteration <= self.options.warmup or reason is None:
            self.bad_checks = 0
            return
        self.bad_checks += 1
        if self.bad_checks == self.options.warn_after:
            logger.warning("step %d: the encoder may be collapsing: %s", engine.state.iteration, reason)
        if self.options.stop_after and self.bad_checks >= self.options.stop_after:
            raise TrainingError(
                f"Training was stopped at step {engine.state.iteration} because the encoder has collapsed: {reason}; "
                "lower --learning_rate, use larger batches or another method, and start in a new --output_dir."
            )

    def _measured(self, engine: PretrainingTrainer) -> tuple[float, float]:
        embedding = engine.state.embedding
        if embedding is None or len(embedding) < 2:
            return math.inf, math.inf
        spread, rank = embedding_spread(embedding), effective_rank(embedding)
        engine.state.metrics |= {"embedding_spread": spread, "effective_rank": rank}
        return spread, rank

    def _reason(self, spread: float, rank: float, loss: float) -> str | None:
        options = self.options
        if spread < options.least_spread:
            return f"all embeddings are nearly equal (spread {spread:.4f} of 1, healthy is over {options.least_spread})"
        if rank < options.least_rank:
            return f"all embeddings lie on one line (effective rank {rank:.3f}, healthy is over {options.least_rank})"
        value = self.method.collapsed_loss
        if value is not None and abs(loss - value) < options.loss_tolerance * abs(value):
            return f"the loss {loss:.5f} is that of a constant output ({value:.5f})"
        return None
