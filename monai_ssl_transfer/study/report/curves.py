"""Label-efficiency curves: a metric over the part of the labels or the shots per class, every run as a point."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from monai_ssl_transfer.study.report.printing import percent, with_unit
from monai_ssl_transfer.study.statistics.analysis import Analysis

_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 36


@dataclass(frozen=True)
class Curve:
    """Runs of one task, protocol and metric.

    Args:
        title: what it is.
        points: initialisation -> fraction -> printed values of the runs.
        foot: what the fractions are of.
        tick: prints one of them.
    """

    title: str
    points: Mapping[str, Mapping[float, Sequence[float]]]
    foot: str = "labels used"
    tick: Callable[[float], str] = percent


def curves(analysis: Analysis) -> list[Curve]:
    """Collect what was run with two or more fractions of the labels, over all experiments."""
    found: dict[tuple[str, str, str], dict[str, dict[float, list[float]]]] = {}
    for declared in analysis.declaration.cells:
        cell = declared.cell
        for metric in declared.metrics:
            values = list(analysis.results.per_seed(cell, metric).values())
            points = found.setdefault((cell.task, cell.protocol, metric), {}).setdefault(cell.initialisation, {})
            if values and cell.fraction not in points:
                scale = analysis.declaration.metric(metric).scale
                points[cell.fraction] = [value * scale for value in values]
    drawn = []
    for (task, protocol, metric), lines in found.items():
        several = {name: points for name, points in lines.items() if len(points) > 1}
        if several:
            name = f"{task}, {protocol}: {with_unit(analysis.declaration.metric(metric))}"
            drawn.append(Curve(name, several))
    return drawn


def curve_svg(curve: Curve, colours: dict[str, str]) -> str:
    """Draw one set of curves as SVG: points are runs, lines join their means."""
    fractions = sorted({fraction for points in curve.points.values() for fraction in points})
    values = [value for points in curve.points.values() for runs in points.values() for value in runs]
    low, high, ticks = axis(min(values), max(values))

    def x(fraction: float) -> float:
        if len(fractions) == 1:
            return _LEFT + 10
        part = math.log(fraction / fractions[0]) / math.log(fractions[-1] / fractions[0])
        return _LEFT + 16 + part * (_WIDTH - _LEFT - _RIGHT - 32)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y(tick):.1f}' y2='{y(tick):.1f}' class='grid'/>"
        f"<text x='{_LEFT - 6}' y='{y(tick) + 4:.1f}' text-anchor='end'>{tick:g}</text>"
        for tick in ticks
    ]
    parts += [
        f"<text x='{x(fraction):.1f}' y='{_HEIGHT - 20}' text-anchor='middle'>{curve.tick(fraction)}</text>"
        for fraction in fractions
    ]
    parts.append(f"<text x='{(_LEFT + _WIDTH) / 2}' y='{_HEIGHT - 4}' text-anchor='middle'>{curve.foot}</text>")
    for index, (name, points) in enumerate(curve.points.items()):
        shift = (index - (len(curve.points) - 1) / 2) * 5
        colour = colours[name]
        means = [(x(fraction) + shift, y(sum(runs) / len(runs))) for fraction, runs in sorted(points.items())]
        path = " ".join(f"{one:.1f},{two:.1f}" for one, two in means)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [
            f"<circle cx='{x(fraction) + shift:.1f}' cy='{y(value):.1f}' r='2.4' fill='{colour}' fill-opacity='.55'/>"
            for fraction, runs in points.items()
            for value in runs
        ]
    return (
        f"<figure><figcaption>{html.escape(curve.title)}</figcaption><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' "
        f"aria-label='{html.escape(curve.title)}'>{''.join(parts)}</svg></figure>"
    )


def axis(smallest: float, largest: float) -> tuple[float, float, list[float]]:
    """Return the ends and the round ticks of an axis that holds all values."""
    spread = max(largest - smallest, 1e-9 * max(abs(largest), 1.0), 1e-12)
    power = 10.0 ** math.floor(math.log10(spread))
    step = next(step for step in (power / 5, power / 2, power, power * 2, power * 5) if spread / step <= 5)
    first, last = math.floor(smallest / step), math.ceil(largest / step)
    if first == last:
        last += 1
    return first * step, last * step, [index * step for index in range(first, last + 1)]
