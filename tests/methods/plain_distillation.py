"""DINO's cross-entropy as the paper writes it, in float64 and loops, for the tests of DINO and DINOv2."""

from __future__ import annotations

import numpy as np
import torch


def plain(x: torch.Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def sinkhorn(teacher: np.ndarray, sharpness: float, iterations: int = 3) -> np.ndarray:
    """Listing 1 of SwAV (arXiv 2006.09882) for outputs `(N, K)` of all images; rows of the result add up to 1."""
    q = np.exp(teacher.T / sharpness)
    q /= q.sum()
    prototypes, rows = q.shape
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * prototypes
        q /= q.sum(axis=0, keepdims=True) * rows
    return q.T * rows


def cross_entropy(
    teacher: np.ndarray, student: np.ndarray, centre: np.ndarray, sharpness: float, temperature: float
) -> float:
    """Of one row of the student's outputs with one of the teacher's."""
    return float(-(softmax((teacher - centre) / sharpness) * np.log(softmax(student / temperature))).sum())


def multi_crop(
    teacher: list[np.ndarray], student: list[np.ndarray], centre: np.ndarray, sharpness: float, temperature: float
) -> np.ndarray:
    """Equation 3 for each image: mean over the pairs of a teacher's view and another student's view."""
    losses = []
    for image in range(len(student[0])):
        terms = [
            cross_entropy(t[image], s[image], centre, sharpness, temperature)
            for i, t in enumerate(teacher)
            for j, s in enumerate(student)
            if i != j
        ]
        losses.append(np.mean(terms))
    return np.array(losses)
