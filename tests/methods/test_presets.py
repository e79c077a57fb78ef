from __future__ import annotations

import pytest

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.presets import LARGE, SMALL, Preset, preset


@pytest.mark.parametrize(
    ("images", "prototypes"),
    [(1, 1024), (20_000, 1024), (20_001, 2048), (50_001, 4096), (100_001, 16384), (200_001, 32768), (500_001, 65536)],
)
def test_prototypes_grow_with_the_images(images: int, prototypes: int) -> None:
    assert preset("dino", images).prototypes == preset("dinov2", images).prototypes == prototypes


def test_published_values_hold_for_large_data() -> None:
    assert preset("dino", LARGE) == Preset(LARGE, 65536, 0.04, 0.996)
    assert preset("dinov2", 10 * LARGE) == Preset(10 * LARGE, 65536, 0.07, 0.992)
    assert preset("moco_v2", LARGE) == Preset(LARGE, momentum=0.999, queue_size=65536)
    assert preset("moco_v3", LARGE) == Preset(LARGE, momentum=0.99)


def test_small_data_gets_safer_values(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert preset("dino", 642) == Preset(642, 1024, 0.02, 0.99)
    assert caplog.messages == [
        "dino with 642 images, where nothing else is given: prototypes 1,024, teacher temperature 0.02, momentum 0.99"
    ]
    assert preset("moco_v2", 642) == Preset(642, momentum=0.99, queue_size=160)
    assert preset("moco_v2", 3).queue_size == 1


def test_between_the_two_values_move_in_a_straight_line() -> None:
    middle = preset("dino", (SMALL + LARGE) // 2)
    assert middle.teacher_temperature == pytest.approx(0.03)
    assert middle.momentum == pytest.approx(0.993)


def test_methods_without_such_numbers_have_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for method in ("simclr", "simclr_v2", "simclr_radnet", "barlow_twins", "mae"):
        assert preset(method, 642) == Preset(642)
    assert caplog.messages == []
    with pytest.raises(TrainingError, match="--dataset_dir"):
        preset("dino", 0)
