"""The losses of the papers in float64 and plain sums, over outputs of eight images that no method has made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from monai_ssl_transfer.methods import MoCoV2, SSLMethod

IMAGES = 8
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "simclr": {"first": (8,), "second": (8,)},
    "moco_v2": {"query": (8,), "key": (8,)},
    "moco_v3": {"query": (2, 8), "key": (2, 8)},
    "barlow_twins": {"first": (8,), "second": (8,)},
    "dino": {"student": (3, 24), "teacher": (2, 24)},
    "dinov2": {"classes": (2, 16), "view_loss": (), "patch_loss": (), "teacher_entropy": ()},
}
"""What a method compares, without the number of images."""


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(name: str) -> dict[str, Tensor]:
    """Representations of all images."""
    found = {key: drawn(seed, IMAGES, *shape) for seed, (key, shape) in enumerate(SHAPES[name].items())}
    return found | ({"teacher_prototype": torch.zeros(IMAGES, dtype=torch.int64)} if name == "dinov2" else {})


def prepare(name: str, method: SSLMethod) -> None:
    """Give a method the state that the formulas know."""
    if isinstance(method, MoCoV2):
        method.queue.keys.copy_(unit(drawn(9, 20, 8)))
    if name == "dino":
        method.centre.value.copy_(drawn(9, 24))  # type: ignore[union-attr, operator]


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def rows(x: Tensor) -> np.ndarray:
    return unit(x.double()).numpy()


def chosen(scores: np.ndarray, place: int) -> float:
    """Minus the logarithm of the share that one place has of the exponentials."""
    return float(np.log(np.exp(scores).sum()) - scores[place])


def simclr(given: dict[str, Tensor]) -> float:
    """NT-Xent, equation 1 of arXiv 2002.05709, temperature 0.2."""
    z = np.concatenate([rows(given["first"]), rows(given["second"])])
    total = 0.0
    for i in range(2 * IMAGES):
        others = [k for k in range(2 * IMAGES) if k != i]
        total += chosen(np.array([z[i] @ z[k] / 0.2 for k in others]), others.index((i + IMAGES) % (2 * IMAGES)))
    return total / (2 * IMAGES)


def moco_v2(given: dict[str, Tensor]) -> float:
    """InfoNCE, equation 1 of arXiv 1911.05722, temperature 0.2."""
    queries, keys, queue = rows(given["query"]), rows(given["key"]), rows(drawn(9, 20, 8))
    return float(
        np.mean([chosen(np.array([q @ k, *(queue @ q)]) / 0.2, 0) for q, k in zip(queries, keys, strict=True)])
    )


def moco_v3(given: dict[str, Tensor]) -> float:
    """Algorithm 1 of arXiv 2104.02057, temperature 1."""
    queries, keys = rows(given["query"]), rows(given["key"])
    return float(sum(2 * np.mean([chosen(keys[:, 1 - v] @ queries[i, v], i) for i in range(IMAGES)]) for v in (0, 1)))


def barlow_twins(given: dict[str, Tensor]) -> float:
    """Equation 1 of arXiv 2103.03230, lambda 0.0051."""
    first, second = given["first"].double().numpy(), given["second"].double().numpy()
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (first, second))
    correlation = a.T @ b / IMAGES
    on = ((1 - np.diag(correlation)) ** 2).sum()
    return float(on + 0.0051 * ((correlation**2).sum() - (np.diag(correlation) ** 2).sum()))


def dino(given: dict[str, Tensor]) -> float:
    """Equation 3 of arXiv 2104.14294 with its centre, temperatures 0.1 and 0.04."""
    student, teacher, centre = (one.double().numpy() for one in (given["student"], given["teacher"], drawn(9, 24)))
    terms = []
    for image in range(IMAGES):
        for t in (0, 1):
            target = np.exp((teacher[image, t] - centre) / 0.04)
            for s in {0, 1, 2} - {t}:
                scores = student[image, s] / 0.1
                terms.append(-(target / target.sum() * (scores - np.log(np.exp(scores).sum()))).sum())
    return float(np.mean(terms))


def dinov2(given: dict[str, Tensor]) -> float:
    """The images' own losses and 0.1 times KoLeo (arXiv 1806.03198, equation 2) of both views' class tokens."""
    spread = 0.0
    for view in (0, 1):
        x = rows(given["classes"][:, view])
        nearest = [min(np.linalg.norm(a - b) for j, b in enumerate(x) if i != j) for i, a in enumerate(x)]
        spread -= float(np.mean(np.log(nearest)))
    return float(given["view_loss"].double().mean() + given["patch_loss"].double().mean()) + 0.1 * spread


LOSSES: dict[str, Callable[[dict[str, Tensor]], float]] = {
    "simclr": simclr,
    "moco_v2": moco_v2,
    "moco_v3": moco_v3,
    "barlow_twins": barlow_twins,
    "dino": dino,
    "dinov2": dinov2,
}
"""MAE is not here: it compares no images, and its loss is a mean over them."""
