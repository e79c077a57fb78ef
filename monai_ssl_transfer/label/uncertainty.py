"""How much a network disagrees with itself on an image: mutual information under dropout."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

RATE = 0.2
_TINY = 1e-12


def entropy(probabilities: Tensor, exclusive: bool) -> Tensor:
    """Entropy in nats.

    Args:
        probabilities: (..., C, *pixels) with the classes in dimension 1 of what follows the samples: (B, C, ...).
        exclusive: of one class of C; False: the sum over C independent findings.

    Returns:
        (B, ...) without the classes.
    """
    found = -(probabilities * probabilities.clamp_min(_TINY).log())
    if not exclusive:
        other = 1 - probabilities
        found = found - other * other.clamp_min(_TINY).log()
    return found.sum(dim=1)


def mutual_information(samples: Tensor, exclusive: bool = True) -> Tensor:
    """Entropy of the mean prediction less the mean entropy: what more knowledge would take away (BALD).

    Houlsby et al. 2011 (arXiv 1112.5745), equation 2; Gal, Islam and Ghahramani 2017 (arXiv 1703.02910) for dropout.

    Args:
        samples: (T, B, C, ...) probabilities of T networks.
        exclusive: of one class of C; False: C independent findings.

    Returns:
        (B, ...) not negative.
    """
    each = torch.stack([entropy(one, exclusive) for one in samples]).mean(dim=0)
    return (entropy(samples.mean(dim=0), exclusive) - each).clamp_min(0)


class DisagreeingNetwork(nn.Module):
    """A copy of a network that measures its disagreement while an inferer runs it.

    Whatever the inferer does (sliding windows, slices of a volume), every call of the network is made several times
    with dropout; the caller gets the plain output. Dropout is drawn at the network's own dropout layers (Gal and
    Ghahramani 2016). Where it has none, channels of the encoder's output are dropped, or the input of the last linear
    layer: dropout at inference of a network trained without it (Mi et al. 2022, arXiv 1910.04858, section 3.2).

    Args:
        network: stays as it is.
        exclusive: see `mutual_information`.
        samples: draws of dropout, two at least.
        seed: of the draws.

    Raises:
        TrainingError: the network has no place for dropout.
    """

    def __init__(self, network: nn.Module, exclusive: bool = True, samples: int = 5, seed: int = 0) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.exclusive = exclusive
        self.samples = samples
        self._generator = torch.Generator().manual_seed(seed)
        self._dropping = False
        self._sum, self._count = 0.0, 0
        self._insert()

    @property
    def score(self) -> float:
        """Mean mutual information per pixel (or image) of all calls so far, nats."""
        return self._sum / self._count if self._count else 0.0

    @torch.no_grad()
    def forward(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Measure, and give what the network gives."""
        plain: Tensor = self.network(inputs, *args, **kwargs)
        self._dropping = True
        try:
            drawn = [self._probabilities(self.network(inputs, *args, **kwargs)) for _ in range(self.samples)]
        finally:
            self._dropping = False
        found = mutual_information(torch.stack(drawn), self.exclusive).double()
        self._sum += float(found.sum())
        self._count += found.numel()
        return plain

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=1) if self.exclusive else logits.float().sigmoid()

    def _insert(self) -> None:
        own = [one for one in self.network.modules() if isinstance(one, _DropoutNd) and one.p > 0]
        for layer in own:
            layer.register_forward_hook(self._after(layer.p))
        if own:
            return
        encoder = getattr(self.network, "encoder", None)
        linear = [one for one in self.network.modules() if isinstance(one, nn.Linear)]
        if isinstance(encoder, nn.Module):
            encoder.register_forward_hook(self._after(RATE))
        elif linear:
            linear[-1].register_forward_pre_hook(self._before(RATE))
        else:
            raise TrainingError(
                f"{type(self.network).__name__} has neither dropout nor an encoder nor a linear layer, so its "
                "uncertainty cannot be measured: choose images with ssl_diverse."
            )

    def _after(self, rate: float) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda _module, _inputs, output: self._drop(output, rate) if self._dropping else None

    def _before(self, rate: float) -> Callable[[nn.Module, Any], Any]:
        return lambda _module, inputs: self._drop(inputs, rate) if self._dropping else None

    def _drop(self, found: Any, rate: float) -> Any:
        """Drop whole channels of every tensor, each image its own."""
        if isinstance(found, (list, tuple)):
            return type(found)([self._drop(one, rate) for one in found])
        if not isinstance(found, Tensor) or found.ndim < 2:
            return found
        shape = (*found.shape[:2], *[1] * (found.ndim - 2))
        kept = (torch.rand(shape, generator=self._generator) >= rate).to(found)
        return found * kept / (1 - rate)
