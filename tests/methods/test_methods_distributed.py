"""Batch norm of keys sees images of the whole batch; two processes are in tests/engines/test_equivalence.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_ssl_transfer.methods.distributed import encode_interleaved


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_interleaved_groups_keep_the_order_and_mix(groups: int) -> None:
    seen: list[list[float]] = []

    class Recorder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.flatten().tolist())
            return 2 * x

    x = torch.arange(7.0)[:, None]
    assert encode_interleaved(Recorder(), x, groups).flatten().tolist() == (2 * x).flatten().tolist()
    assert len(seen) == groups
    assert seen[0] == x.flatten().tolist()[::groups]
