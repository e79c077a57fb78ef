"""Linear CKA: how alike two layers see the same images, whatever the rotation and scale of their activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_ssl_transfer.errors import DataError

FEWEST = 4
"""Images of a batch below which the unbiased estimator does not exist."""


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of two sets of activations of the same images.

    ||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F) of the centred activations (Kornblith et al., ICML 2019, eq. 3 with linear
    kernels). It is biased upwards where there are more features than images; see `MinibatchCKA`.

    Args:
        first: (N, ...) activations; all but the first axis are features.
        second: (N, ...) activations of the same images.

    Returns:
        0 (nothing in common) to 1 (the same up to rotation and scale); nan where a layer is constant.

    Raises:
        DataError: if the numbers of images differ.
    """
    if len(first) != len(second):
        raise DataError(f"CKA needs the same images: the layers have {len(first)} and {len(second)}.")
    one, other = centred_gram(first), centred_gram(second)
    below = float(one.norm() * other.norm())
    return float((one * other).sum()) / below if below > 0 else float("nan")


def centred_gram(activations: Tensor) -> Tensor:
    """Inner products between images, (N, N) float64, of activations less their mean.

    Args:
        activations: (N, ...).
    """
    rows = activations.detach().flatten(1).float()
    rows = rows - rows.mean(dim=0, keepdim=True)
    return (rows @ rows.T).double()


def unbiased_hsic(one: Tensor, other: Tensor) -> Tensor:
    """HSIC_1, the unbiased estimator of the Hilbert-Schmidt independence criterion.

    Song et al., JMLR 13:1393-1434, 2012, eq. 4, as Nguyen et al. 2021 use it.

    Args:
        one: (..., n, n) inner products, n > 3; the diagonal is not used.
        other: (..., n, n) of the same images.

    Returns:
        (...) float64.

    Raises:
        DataError: for fewer than 4 images.
    """
    n = one.shape[-1]
    if n < FEWEST:
        raise DataError(f"CKA of a batch needs at least {FEWEST} images and got {n}: give more images.")
    free = 1 - torch.eye(n, dtype=torch.float64, device=one.device)
    one, other = one.double() * free, other.double() * free
    row, column = one.sum(-1), other.sum(-1)
    trace = (one * other).sum((-2, -1))
    means = row.sum(-1) * column.sum(-1) / ((n - 1) * (n - 2))
    mixed = (row * column).sum(-1) * 2 / (n - 2)
    return (trace + means - mixed) / (n * (n - 3))


class MinibatchCKA:
    """Linear CKA between every layer of one network and every layer of another, from batches, in bounded memory.

    mean HSIC_1(K, L) / sqrt(mean HSIC_1(K, K) mean HSIC_1(L, L)), means over batches (Nguyen, Raghu and Kornblith,
    ICLR 2021, eq. 3): the expected value does not depend on the size of the batches, and layers that have nothing in
    common give 0 also where they have more features than there are images.
    """

    def __init__(self) -> None:
        self._cross: Tensor | None = None
        self._first = self._second = torch.zeros(0)
        self.batches = 0

    def add(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
        """Take a batch.

        Args:
            first: (n, n) `centred_gram` per layer of the first network.
            second: (n, n) per layer of the second, for the same images in the same order.
        """
        one, other = torch.stack(list(first)), torch.stack(list(second))
        cross = unbiased_hsic(one[:, None], other[None])
        if self._cross is None:
            self._cross = torch.zeros_like(cross)
            self._first = torch.zeros(len(one), dtype=torch.float64, device=one.device)
            self._second = torch.zeros(len(other), dtype=torch.float64, device=one.device)
        self._cross = self._cross + cross
        self._first = self._first + unbiased_hsic(one, one)
        self._second = self._second + unbiased_hsic(other, other)
        self.batches += 1

    def value(self) -> Tensor:
        """(layers of the first, layers of the second) float64; nan where a layer is constant.

        Raises:
            DataError: if no batch was added.
        """
        if self._cross is None:
            raise DataError("CKA needs at least one batch of images.")
        below = self._first[:, None] * self._second[None]
        return torch.where(below > 0, self._cross / below.clamp(min=0).sqrt(), torch.nan)
