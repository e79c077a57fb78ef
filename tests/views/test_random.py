from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.views.random import philox, random_words, uniform


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter: tuple, key: tuple, expected: tuple) -> None:
    words = philox(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(w) for w in words) == expected


def test_a_number_depends_on_its_own_coordinates_only() -> None:
    samples = torch.arange(100)
    whole = uniform(5, 3, samples[:, None], torch.arange(4), 13)
    assert whole.shape == (100, 4, 13)
    assert torch.equal(whole[40:60, 2], uniform(5, 3, samples[40:60], 2, 13))
    assert torch.equal(whole[[7, 99, 7], 1, :5], uniform(5, 3, torch.tensor([7, 99, 7]), 1, 5))


@pytest.mark.parametrize("change", ["seed", "epoch", "sample", "view", "high word of the seed", "high word of sample"])
def test_every_coordinate_matters_and_gives_independent_numbers(change: str) -> None:
    samples = torch.arange(4000)
    first = uniform(1, 1, samples, 1, 4).flatten().numpy()
    second = {
        "seed": lambda: uniform(2, 1, samples, 1, 4),
        "epoch": lambda: uniform(1, 2, samples, 1, 4),
        "sample": lambda: uniform(1, 1, samples + 1, 1, 4),
        "view": lambda: uniform(1, 1, samples, 2, 4),
        "high word of the seed": lambda: uniform(1 + 2**32, 1, samples, 1, 4),
        "high word of sample": lambda: uniform(1, 1, samples + 2**32, 1, 4),
    }[change]()
    second = second.flatten().numpy()
    assert (first != second).mean() > 0.99
    cells = np.histogram2d(first, second, bins=8, range=[[0, 1]] * 2)[0].ravel()
    assert stats.chisquare(cells).pvalue > 1e-4
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(first))


def test_numbers_are_uniform_and_positions_are_independent() -> None:
    numbers = uniform(123, 7, torch.arange(20000), 0, 6).numpy()
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        assert stats.chisquare(np.histogram(column, bins=64, range=(0, 1))[0]).pvalue > 1e-4
    correlation = np.corrcoef(numbers.T) - np.eye(6)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(numbers))


def test_all_bits_of_a_word_are_used() -> None:
    words = random_words(0, 0, torch.arange(5000), 0, 4).numpy()
    share = ((words[..., None] >> np.arange(32)) & 1).reshape(-1, 32).mean(axis=0)
    assert np.abs(share - 0.5).max() < 0.02
    assert words.max() < 2**32


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(TrainingError):
        uniform(0, 2**32, torch.arange(2), 0, 4)
    with pytest.raises(TrainingError):
        uniform(0, 0, torch.arange(2), 0, 2**19)
