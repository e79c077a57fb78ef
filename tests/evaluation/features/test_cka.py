"""CKA against its definition with centring matrices, sums over tuples, and what it has to ignore."""

import itertools

import numpy as np
import pytest
import torch

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.cka import MinibatchCKA, centred_gram, linear_cka, unbiased_hsic


def activations(images: int, features: int, seed: int) -> torch.Tensor:
    return torch.randn(images, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3


def test_cka_is_the_ratio_of_hsics_with_centring_matrices() -> None:
    x, y = activations(9, 4, 0).numpy(), activations(9, 7, 1).numpy()
    h = np.eye(9) - 1 / 9
    k, j = x @ x.T, y @ y.T

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ h @ b @ h))

    wanted = hsic(k, j) / np.sqrt(hsic(k, k) * hsic(j, j))
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(wanted, abs=1e-6)


def test_cka_ignores_rotation_scale_and_mean_and_sees_another_stretch() -> None:
    x = activations(20, 5, 0)
    rotation = torch.linalg.qr(activations(5, 5, 1))[0]
    assert linear_cka(x, 7 * x @ rotation + 2) == pytest.approx(1, abs=1e-5)
    assert linear_cka(x, x * torch.tensor([20.0, 1, 1, 1, 1])) < 0.9


def test_unbiased_hsic_is_the_mean_over_all_tuples_of_different_images() -> None:
    """Song et al. 2012, eq. 3: E[k(i,j) l(i,j)] + E[k(i,j) l(q,r)] - 2 E[k(i,j) l(i,q)], all indices different."""
    x, y = activations(6, 3, 2), activations(6, 2, 3)
    k, j = (x @ x.T).numpy(), (y @ y.T).numpy()
    pairs = list(itertools.permutations(range(6), 2))
    threes = list(itertools.permutations(range(6), 3))
    fours = list(itertools.permutations(range(6), 4))
    wanted = (
        np.mean([k[a, b] * j[a, b] for a, b in pairs])
        + np.mean([k[a, b] * j[c, d] for a, b, c, d in fours])
        - 2 * np.mean([k[a, b] * j[a, c] for a, b, c in threes])
    )
    assert float(unbiased_hsic(x @ x.T, y @ y.T)) == pytest.approx(wanted, rel=1e-9)
    # taking out the mean of the batch changes nothing but rounding
    assert float(unbiased_hsic(centred_gram(x), centred_gram(y))) == pytest.approx(wanted, rel=1e-4)


def test_batches_give_0_for_layers_with_nothing_in_common_where_the_plain_value_does_not() -> None:
    cka = MinibatchCKA()
    for batch in range(60):
        x, y = activations(16, 300, 2 * batch), activations(16, 300, 2 * batch + 1)
        cka.add([centred_gram(x), centred_gram(y)], [centred_gram(x * 3 - 1)])
    found = cka.value()
    assert found.shape == (2, 1) and cka.batches == 60
    assert float(found[0, 0]) == pytest.approx(1, abs=1e-6)
    assert abs(float(found[1, 0])) < 0.02
    assert linear_cka(x, y) > 0.8


def test_batches_are_averaged_before_the_ratio() -> None:
    grams = [(centred_gram(activations(8, 4, seed)), centred_gram(activations(8, 4, seed + 50))) for seed in (0, 1)]
    cka = MinibatchCKA()
    for one, other in grams:
        cka.add([one], [other])
    sums = [sum(float(unbiased_hsic(pair[a], pair[b])) for pair in grams) for a, b in ((0, 1), (0, 0), (1, 1))]
    assert float(cka.value()) == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]), rel=1e-9)


def test_a_constant_layer_has_no_cka() -> None:
    cka = MinibatchCKA()
    cka.add([centred_gram(torch.ones(5, 3))], [centred_gram(activations(5, 3, 0))])
    assert bool(cka.value().isnan().all())
    assert np.isnan(linear_cka(torch.ones(5, 3), activations(5, 3, 0)))


def test_too_few_or_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="at least 4 images"):
        unbiased_hsic(torch.eye(3), torch.eye(3))
    with pytest.raises(DataError, match="same images"):
        linear_cka(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(DataError, match="at least one batch"):
        MinibatchCKA().value()
