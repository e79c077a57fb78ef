"""The figures of an evaluation by name, apart from its counts and settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_OF_CASES = ("videos", "groups", "sequences", "patients", "support")
"""Parts of a summary that name the user's own cases."""
_SETTINGS = ("tolerance_mm", "score_threshold", "minimum_lesion_area", "minimum_area", "iou_threshold", "seed")
_ASKED = "_asked"


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Args:
        name: such as "liver_dice".
        value: of all cases, or their mean.
        sd: standard deviation over cases; None for a value of all, and where there is one case.
        n: number of cases of a mean.
    """

    name: str
    value: float
    sd: float | None = None
    n: int | None = None


def figures(summary: Mapping[str, Any], name: str = "") -> Iterator[Figure]:
    """What was measured; whole numbers are counts (`counts`).

    Args:
        summary: of ``summary.json``.
        name: of the part of the summary.
    """
    if "mean" in summary:
        if _is_number(summary["mean"]):
            n = summary.get("n")
            spread = summary.get("sd") if n is None or n > 1 else None
            yield Figure(name, summary["mean"], spread, n)
        return
    for key, value in summary.items():
        full = _joined(name, key)
        if key in _OF_CASES or key in _SETTINGS or str(key).endswith(_ASKED):
            continue
        if isinstance(value, Mapping):
            yield from figures(value, full)
        elif isinstance(value, list):
            for number, one in enumerate(value):
                if isinstance(one, Mapping):
                    yield from figures(one, _joined(full, _point(one, number)))
                elif isinstance(one, float):
                    yield Figure(f"{full}_{number}", one)
        elif isinstance(value, float):
            yield Figure(full, value)


def counts(summary: Mapping[str, Any]) -> dict[str, float]:
    """How much was measured, and with which settings."""
    return {
        str(key): value
        for key, value in summary.items()
        if _is_number(value) and (isinstance(value, int) or key in _SETTINGS)
    }


def _joined(name: str, key: str) -> str:
    return name if key == "classes" else f"{name}_{key}" if name else key


def _point(entry: Mapping[str, Any], number: int) -> str:
    """A point of a curve is named by what was asked of it."""
    asked = next((value for key, value in entry.items() if str(key).endswith(_ASKED)), None)
    return str(number) if asked is None else f"{asked:g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
