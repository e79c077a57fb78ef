"""Whether an encoder's tensors are whole: the one rule for loading, converting and looking into files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

BATCH_COUNTER = ".num_batches_tracked"
"""End of the names of batch norms' counters, which old files lack and nothing reads."""


@dataclass(frozen=True)
class Completeness:
    """How tensors differ from those that are expected.

    Args:
        matched: names that are there with the right shape.
        missing: names that are not there; counters of batches may be absent.
        unexpected: names that are left over.
        mismatched: names of another shape.
        counters: counters of batches that are absent.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    counters: tuple[str, ...]

    @property
    def different(self) -> tuple[str, ...]:
        """All names that hinder a complete load."""
        return (*self.missing, *self.unexpected, *self.mismatched)


def completeness(
    state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], any_shape: Collection[str] = ()
) -> Completeness:
    """Compare tensors with what they must be.

    Args:
        state: names to tensors.
        expected: names to shapes.
        any_shape: names whose shape may differ.
    """
    absent = [name for name in expected if name not in state]
    shared = [name for name in expected if name in state]
    fitting = {name for name in shared if name in any_shape or tuple(state[name].shape) == tuple(expected[name])}
    return Completeness(
        matched=tuple(name for name in shared if name in fitting),
        missing=tuple(name for name in absent if not name.endswith(BATCH_COUNTER)),
        unexpected=tuple(name for name in state if name not in expected),
        mismatched=tuple(name for name in shared if name not in fitting),
        counters=tuple(name for name in absent if name.endswith(BATCH_COUNTER)),
    )
