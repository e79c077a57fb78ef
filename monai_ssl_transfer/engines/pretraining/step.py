"""The gradients of one optimizer step, from a batch that is put through the network whole or in pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod


@dataclass(frozen=True)
class StepOptions:
    """How one optimizer step is made.

    Args:
        accumulation: pieces in which a process puts its part of the batch through the network; the memory needed
            falls, the loss still compares all images of the batch.
        clip_norm: largest gradient norm; ``None`` clips nothing.
        precision: ``"fp32"`` or ``"bf16"`` (autocast, on a CPU too; needs no loss scaling).
        channels_last: memory format of network and views; faster for convolutions on a GPU.
        compile: ``torch.compile`` the encoders.
        on_nonfinite: ``"stop"`` at a loss or gradient that is not a number, or ``"skip"`` such a step.
    """

    accumulation: int = 1
    clip_norm: float | None = None
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    on_nonfinite: str = "stop"

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise TrainingError(f"precision {self.precision!r} is unknown; choose fp32 or bf16.")
        if self.accumulation < 1:
            raise TrainingError(f"accumulation must be 1 or more, not {self.accumulation}.")
        if self.on_nonfinite not in ("stop", "skip"):
            raise TrainingError(f"on_nonfinite {self.on_nonfinite!r} is unknown; choose stop or skip.")


@dataclass(frozen=True)
class Piece:
    """Some images of a process's part of the batch: views ``(b, C, s, s)`` and what they draw random numbers from."""

    views: list[Tensor]
    keys: SampleKeys


class StepGradients:
    """Adds the gradients of one step to the parameters.

    A batch that does not fit into memory is cut into pieces. For a ``separable`` method their gradients are averaged.
    For a method that compares images this would be another, worse loss (fewer negatives), so all pieces are
    represented without gradients, compared once, and represented again with the gradients of the comparison (Gao et
    al. 2021, arXiv 2101.06983); only batch norm then still sees the pieces one by one. That costs a second forward
    pass, and nothing when there is one piece.

    Args:
        network: the method, or its DistributedDataParallel wrapper.
        method: the method itself.
        options: precision and number of pieces.
    """

    def __init__(self, network: nn.Module, method: SSLMethod, options: StepOptions) -> None:
        self.network = network
        self.method = method
        self.options = options

    def __call__(self, views: list[Tensor], progress: float, keys: SampleKeys) -> dict[str, Any]:
        """Run forward and backward.

        Args:
            views: of this process's part of the batch, ``(B, C, s, s)`` each.
            progress: position in the training, 0 to 1.
            keys: one per image.

        Returns:
            "loss" and the method's scalars, detached, and "embedding" ``(B, D)``.

        Raises:
            TrainingError: when the part cannot be cut into equal pieces, or the method needs it whole.
        """
        if self.options.accumulation > 1 and self.method.in_one_piece:
            raise TrainingError(
                f"{self.method.in_one_piece} looks at all images of a step at once, which --accumulation "
                f"{self.options.accumulation} cuts into pieces: leave one of the two out."
            )
        pieces = cut(views, keys, self.options.accumulation)
        if len(pieces) == 1 or self.method.separable:
            return self._accumulated(pieces, progress)
        return self._cached(pieces, progress)

    def _accumulated(self, pieces: Sequence[Piece], progress: float) -> dict[str, Any]:
        outputs = []
        for number, piece in enumerate(pieces, 1):
            with self._communicating(number == len(pieces)):
                with self._precision(piece):
                    output = dict(self.network(piece.views, progress, piece.keys))
                (output["loss"] / len(pieces)).backward()
            outputs.append({name: value.detach() for name, value in output.items()})
        return {name: _joined(name, [output[name] for output in outputs]) for name in outputs[0]}

    def _cached(self, pieces: Sequence[Piece], progress: float) -> dict[str, Any]:
        parts, states, trained = [], [], set()
        for number, piece in enumerate(pieces):
            states.append(_random_state(piece.views[0].device))
            # the first piece tells which representations carry gradients; its graph is dropped at once
            with torch.set_grad_enabled(number == 0), self._precision(piece):
                part = self.method.represent(piece.views, progress, piece.keys)
            trained |= {name for name, value in part.items() if value.requires_grad}
            parts.append({name: value.detach() for name, value in part.items()})
            del part
        whole = {name: torch.cat([part[name] for part in parts]).requires_grad_(name in trained) for name in parts[0]}
        with self._precision(pieces[0]):
            output = dict(self.method.compare(whole, progress))
        output["loss"].backward()
        # a representation that the loss leaves alone has no gradient
        gradients = {name: whole[name].grad for name in sorted(trained) if whole[name].grad is not None}
        split = {name: gradient.chunk(len(pieces)) for name, gradient in gradients.items() if gradient is not None}
        with _put_back(self.method), _random_states_kept(pieces[0].views[0].device):
            for number, (piece, state) in enumerate(zip(pieces, states, strict=True), 1):
                _set_random_state(piece.views[0].device, state)
                own = {name: chunks[number - 1] for name, chunks in split.items()}
                with self._communicating(number == len(pieces)):
                    with self._precision(piece):
                        again = self.network(piece.views, progress, piece.keys, own)
                    again["loss"].backward()
        return {**{name: value.detach() for name, value in output.items()}, "embedding": whole["embedding"]}

    def _precision(self, piece: Piece) -> torch.autocast:
        kind = piece.views[0].device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.options.precision == "bf16")

    def _communicating(self, last: bool) -> contextlib.AbstractContextManager:
        """Between processes, gradients need adding up only once per step; the forward pass must be inside too."""
        if not last and isinstance(self.network, nn.parallel.DistributedDataParallel):
            return self.network.no_sync()
        return contextlib.nullcontext()


def cut(views: list[Tensor], keys: SampleKeys, number: int) -> list[Piece]:
    """Cut a batch into pieces of equal size.

    Raises:
        TrainingError: when the number of images is no multiple of the number of pieces.
    """
    images = len(views[0])
    if images % number:
        raise TrainingError(
            f"The {images} images that each process has of a batch cannot be cut into {number} equal pieces: choose an "
            "--accumulation that divides --batch_size / processes."
        )
    size = images // number
    places = [slice(start, start + size) for start in range(0, images, size)]
    return [Piece([view[place] for view in views], keys.part(place)) for place in places]


def _joined(name: str, values: list[Tensor]) -> Tensor:
    """The embeddings of all pieces one after the other; of everything else the mean."""
    if len(values) == 1:
        return values[0]
    return torch.cat(values) if name == "embedding" else torch.stack(values).mean(0)


@contextlib.contextmanager
def _put_back(method: nn.Module) -> Iterator[None]:
    """Let buffers (running statistics) be afterwards as they were: representing again must not move them twice."""
    kept = {name: buffer.clone() for name, buffer in method.named_buffers()}
    yield
    with torch.no_grad():
        for name, buffer in method.named_buffers():
            buffer.copy_(kept[name])


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def _random_states_kept(device: torch.device) -> contextlib.AbstractContextManager:
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
