from __future__ import annotations

import pickle

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureTyped

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views import BatchedViews, SSLViewsd, recipe

RECIPE = recipe("dino", "ct", image_size=64)


def test_gives_the_views_of_the_batched_module_in_a_monai_pipeline() -> None:
    hu = torch.randint(-1024, 2000, (1, 100, 90), dtype=torch.int16)
    transform = Compose([EnsureTyped("image", dtype=torch.float32), SSLViewsd("image", RECIPE, "windows", seed=3)])
    transform = pickle.loads(pickle.dumps(transform))
    data = transform({"image": MetaTensor(hu), "index": 12, "epoch": 5})
    expected = BatchedViews(RECIPE, "windows", 3)(hu[None], None, torch.tensor([12]), 5)
    assert len(expected) == 10
    for number, view in enumerate(expected):
        assert torch.equal(data[f"image_view_{number}"], view[0])
    assert data["image"].shape == hu.shape


def test_epoch_can_be_set() -> None:
    transform = SSLViewsd("image", RECIPE, "single")
    data = {"image": torch.randint(-1024, 2000, (1, 80, 80), dtype=torch.int16), "index": 0}
    first = transform(data)["image_view_0"]
    transform.set_epoch(1)
    assert not torch.equal(first, transform(data)["image_view_0"])
    assert torch.equal(first, transform({**data, "epoch": 0})["image_view_0"])


def test_rgb_and_a_missing_number() -> None:
    picture = torch.randint(0, 256, (3, 80, 80)).float()
    transform = SSLViewsd("image", recipe("simclr", "rgb", 32), "rgb", sample_key="number")
    assert transform({"image": picture, "number": 1})["image_view_1"].shape == (3, 32, 32)
    with pytest.raises(DataError, match="'number'"):
        transform({"image": picture})
