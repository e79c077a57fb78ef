"""Centring and sharpening: how the teacher of DINO and DINOv2 turns its outputs into a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Centre(nn.Module):
    """Moving average of the teacher's outputs (Caron et al. 2021, arXiv 2104.14294, equation 4).

    A step's outputs are collected, of as many pieces as the batch is put through the network in, and the average moves
    once, after the step, by the mean over all images of all processes. lightly's DINOLoss and IBOTPatchLoss move
    theirs in every call, in evaluation too, and average the means of processes whatever the number of rows in each.

    Args:
        length: K.
        momentum: of the moving average, per optimizer step.
    """

    def __init__(self, length: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.value: Tensor
        self.register_buffer("value", torch.zeros(length))
        self._collected: Tensor | None = None
        self._progress = 0.0

    @torch.no_grad()
    def collect(self, total: Tensor, count: Tensor, progress: float) -> None:
        """Keep outputs until `move`.

        Args:
            total: `(K,)`, sum of rows.
            count: scalar, number of rows.
            progress: of the step. What was collected at another position belongs to a step that was skipped.
        """
        rows = torch.cat([total.float(), count.float().reshape(1)])
        if self._collected is not None and self._progress == progress:
            rows = rows + self._collected
        self._collected, self._progress = rows, progress

    @torch.no_grad()
    def move(self) -> None:
        """Move the average by what all processes have collected, if anything."""
        if self._collected is None:
            return
        rows, self._collected = self._collected, None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(rows)
        total, count = rows[:-1], rows[-1]
        self.value.lerp_(total / count.clamp(min=1), (1 - self.momentum) * (count > 0))


def target(teacher: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """The teacher's distribution over the prototypes (equation 1, centred).

    Args:
        teacher: outputs `(..., K)`.
        centre: `(K,)`.
        temperature: sharpness.
    """
    return torch.softmax((teacher - centre) / temperature, dim=-1)


@torch.no_grad()
def sinkhorn_knopp(teacher: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """The teacher's distributions, made such that all rows together choose every prototype equally often.

    In logarithms, where no prototype's share becomes 0 by rounding. Caron et al. 2020 (SwAV, arXiv 2006.09882, section
    3.1 and listing 1); in place of a centre in DINOv2's long recipe (Oquab et al. 2023, arXiv 2304.07193).

    Args:
        teacher: outputs `(N, K)`; N may be 0, and another one in each process. Every process must call this.
        temperature: sharpness.
        iterations: normalisations over the rows of all processes, each followed by one over the prototypes.

    Returns:
        `(N, K)`, each row adds up to 1.
    """
    scores = teacher.float() / temperature
    for _ in range(iterations):
        scores = torch.log_softmax(scores - _over_all_rows(scores), dim=1)
    return scores.exp()


def _over_all_rows(scores: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials over the rows of all processes: `(K,)`."""
    own = torch.logsumexp(scores, dim=0)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    largest = own.clone()
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    sums = (own - largest).exp()
    torch.distributed.all_reduce(sums)
    return largest + sums.log()


def entropy(distribution: Tensor) -> Tensor:
    """Mean entropy in nats over the rows of `(..., K)`."""
    return torch.special.entr(distribution).sum(dim=-1).mean()


def first_choices(choices: Tensor, prototypes: int) -> Tensor:
    """How many prototypes are the most probable one of some row; 1 for many images means that the teacher collapsed.

    Args:
        choices: `(B,)`, the most probable prototype of each row.
        prototypes: K.

    Returns:
        Scalar, float32.
    """
    # not unique(), whose result's length a GPU would have to be waited for
    return torch.zeros(prototypes, device=choices.device).index_fill_(0, choices, 1.0).sum()


def between_views(distribution: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each pair of a teacher's and another student's view (equation 3), mean over the pairs.

    Args:
        distribution: the teacher's `(B, T, K)`.
        student: outputs `(B, S, K)`; its first T views are those of the teacher.
        temperature: the student's.

    Returns:
        `(B,)`, one loss per image.
    """
    pairs = -torch.bmm(distribution, torch.log_softmax(student / temperature, dim=-1).transpose(1, 2))
    teachers, students = pairs.shape[1:]
    same = torch.eye(teachers, students, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum((1, 2)) / (teachers * students - teachers)


def row_by_row(distribution: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each row of the student's `(M, K)` outputs with that of the teacher's distribution: `(M,)`."""
    return -(distribution * torch.log_softmax(student / temperature, dim=-1)).sum(dim=-1)
