"""Protocols on frozen embeddings: what an encoder's own vectors say about a task, without training the encoder."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

_PLACES = {
    "knn": "knn:KNNProbe",
    "ml_knn": "ml_knn:MLKNNProbe",
    "linear": "linear:LinearProbe",
    "logistic": "logistic:LogisticProbe",
    "few_shot": "few_shot:FewShotProbe",
}


class _LazyProbes(Mapping[str, type]):
    """The probes' classes by name; a module is imported when its class is asked for."""

    def __getitem__(self, name: str) -> type:
        module, _, cls = _PLACES[name].partition(":")
        return vars(importlib.import_module(f"{__name__}.{module}"))[cls]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)

    def __contains__(self, name: Any) -> bool:
        return name in _PLACES


PROBES: Mapping[str, type] = _LazyProbes()
