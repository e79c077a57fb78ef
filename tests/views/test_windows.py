from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.views import windows


def reference(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    scaled = np.clip((hu.astype(np.float64) - (level - width / 2)) / width, 0, 1)
    return (scaled - 0.5) / 0.25


def test_three_windows_match_the_formula() -> None:
    hu = np.arange(-2000, 3000, dtype=np.int16).reshape(1, 1, 50, 100)
    out = windows.HUToChannels("windows")(torch.from_numpy(hu))
    expected = np.concatenate([reference(hu, 40, 400), reference(hu, -600, 1500), reference(hu, 400, 1800)], axis=1)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-6)


def test_known_values_of_soft_tissue() -> None:
    hu = torch.tensor([-1024, -160, 40, 240, 3071], dtype=torch.int16).view(1, 1, 1, 5)
    out = windows.hu_to_channels(hu, [windows.SOFT_TISSUE])
    assert out.flatten().tolist() == [-2.0, -2.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize(("name", "slices", "channels"), [("windows", 1, 3), ("single", 1, 1), ("neighbours", 3, 3)])
def test_counts(name: str, slices: int, channels: int) -> None:
    assert windows.source_channels(name) == slices
    assert windows.channels_count(name) == channels
    module = windows.HUToChannels(name)
    assert module(torch.zeros(2, slices, 4, 5, dtype=torch.int16)).shape == (2, channels, 4, 5)
    assert not module.state_dict()
    mean, std = windows.normalisation(name)
    assert len(mean) == len(std) == channels


def test_neighbours_keep_their_order() -> None:
    hu = torch.tensor([0, 40, 100], dtype=torch.int16).view(1, 3, 1, 1)
    out = windows.HUToChannels("neighbours")(hu).flatten()
    np.testing.assert_allclose(out.numpy(), reference(np.array([0, 40, 100]), 40, 400), atol=1e-6)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="needs 1 slice"):
        windows.HUToChannels("windows")(torch.zeros(1, 3, 2, 2))
    with pytest.raises(DataError, match="one window"):
        windows.hu_to_channels(torch.zeros(1, 3, 2, 2), [windows.LUNG, windows.BONE])
    with pytest.raises(TrainingError, match="unknown channels"):
        windows.channels_count("rgb3")
    with pytest.raises(TrainingError, match="positive width"):
        windows.HUWindow(0, 0)


def test_can_be_scripted_and_traced() -> None:
    hu = torch.randint(-1024, 3000, (2, 1, 8, 8), dtype=torch.int16)
    module = windows.HUToChannels("windows")
    assert torch.equal(torch.jit.trace(module, hu)(hu), module(hu))
    assert torch.equal(torch.jit.script(module)(hu), module(hu))


def test_dictionary_transform_is_the_same_function_and_keeps_the_affine() -> None:
    hu = torch.randint(-1024, 3000, (1, 8, 8), dtype=torch.int16)
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    data = {"image": MetaTensor(hu, affine=affine), "other": 1}
    out = windows.HUToChannelsd("image", channels="windows")(data)
    assert torch.equal(out["image"].as_tensor(), windows.HUToChannels("windows")(hu[None])[0])
    assert torch.equal(out["image"].affine, affine)
    assert out["other"] == 1
    assert data["image"].shape == (1, 8, 8)
