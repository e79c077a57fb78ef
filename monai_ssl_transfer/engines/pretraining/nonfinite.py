"""What happens at a loss or gradient that is not a number: stop with all facts, or skip the step and count."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor, nn

from monai_ssl_transfer.engines.pretraining.faults import last_good, other_settings
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

MOST_IN_A_ROW = 20
MOST_NAMED = 20


class FiniteGuard:
    """Decides whether a step may be made, the same in every process; a step that is skipped leaves no trace.

    Args:
        method: its buffers (queue, centre, running statistics) are put back when a step is skipped.
        skip: go on after such a step instead of stopping.
        place_of: what an image is called in messages, by its key; default the key, its number in the store.
    """

    def __init__(self, method: nn.Module, skip: bool, place_of: Callable[[int], str] | None = None) -> None:
        self.place_of = place_of or str
        self.method = method
        self.skip = skip
        self.skipped = 0
        self.in_a_row = 0
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the buffers as they are before the step (only where steps may be skipped)."""
        if not self.skip:
            return
        for name, buffer in self.method.named_buffers():
            if name in self._buffers:
                self._buffers[name].copy_(buffer)
            else:
                self._buffers[name] = buffer.clone()

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what the forward pass did to the buffers."""
        for name, buffer in self.method.named_buffers():
            buffer.copy_(self._buffers[name])

    def accepts(
        self, loss: Tensor, norm: Tensor, own_loss: Tensor, place: str, keys: Tensor, newest: str | None
    ) -> bool:
        """Whether the optimizer may make this step.

        Args:
            loss: mean over the processes, so that all of them decide alike.
            norm: of the gradient, which the processes have in common.
            own_loss: this process's loss.
            place: of the step, for the messages.
            keys: store keys of this process's images.
            newest: the checkpoint that was written or read last, for the message.

        Raises:
            TrainingError: when it may not and steps are not skipped, or too many were skipped in a row.
        """
        values = torch.stack([loss.detach().float(), norm.detach().float().to(loss.device)]).tolist()
        if all(math.isfinite(value) for value in values):
            self.in_a_row = 0
            return True
        what, value = ("gradient", values[1]) if math.isfinite(values[0]) else ("loss", values[0])
        images = self._named(_suspects(own_loss, keys))
        self.in_a_row += 1
        if self.skip and self.in_a_row < MOST_IN_A_ROW:
            self.skipped += 1
            self.put_back()
            logger.warning("the %s is %s at %s, for the store's images %s; skipped", what, value, place, images)
            return False
        often = f"{self.in_a_row} times in a row, now " if self.skip else ""
        good = last_good(newest)
        leave_out = "" if self.skip else "give the same command --on_nonfinite skip to go on without such steps, or "
        raise TrainingError(
            f"The {what} is {value} {often}at {place}, for the store's images {images}; look at these images, "
            f"{leave_out}lower --learning_rate {other_settings(good)}; the last good state is {good}."
        )

    def _named(self, images: Sequence[int]) -> str:
        """The first images of a list, and how many more there are."""
        named = ", ".join(self.place_of(image) for image in images[:MOST_NAMED])
        return named if len(images) <= MOST_NAMED else f"{named} and {len(images) - MOST_NAMED} more"


def _suspects(own_loss: Tensor, keys: Tensor) -> list[int]:
    """The images of the processes whose own loss is not finite; of all of them where no loss is to blame."""
    facts: list[Any] = [(bool(torch.isfinite(own_loss)), keys.tolist())]
    if idist.get_world_size() > 1:
        own, facts = facts[0], [None] * idist.get_world_size()
        torch.distributed.all_gather_object(facts, own)
    bad = [images for finite, images in facts if not finite]
    return [image for images in bad or [images for _, images in facts] for image in images]
