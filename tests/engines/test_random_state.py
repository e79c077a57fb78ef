from __future__ import annotations

import io
import random

import numpy as np
import torch

from monai_ssl_transfer.engines.checkpoints.random_state import random_states, set_random_states


def test_all_generators_go_on_where_they_were() -> None:
    random.gauss(0, 1)  # leaves a second number behind
    np.random.standard_normal(1)
    file = io.BytesIO()
    torch.save(random_states(), file)
    file.seek(0)

    def drawn() -> list[float]:
        own = [random.random(), random.gauss(0, 1), *np.random.standard_normal(3), *torch.rand(2).tolist()]
        return [float(number) for number in own]

    expected = drawn()
    drawn()
    set_random_states(torch.load(file, weights_only=True))
    assert drawn() == expected
