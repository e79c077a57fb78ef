"""A plot of a few lines with bands, as SVG that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from monai_ssl_transfer.study.report.curves import axis


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Args:
        name: in its tooltip.
        colour: of line and band.
        x: places.
        y: values.
        low: lower ends of the band; empty draws none.
        high: upper ends.
    """

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Frame:
    """Size and words of a plot.

    Args:
        title: above it.
        foot: below the x axis.
        width: of the drawing; it is scaled to the page.
        height: of the drawing.
        zero: whether a line at 0 is drawn, which the axis then holds.
    """

    title: str
    foot: str = ""
    width: int = 360
    height: int = 230
    zero: bool = False


def line_plot(lines: Sequence[Line], frame: Frame, limits: tuple[float, float] | None = None) -> str:
    """Draw lines over whole numbers.

    Args:
        lines: with finite values.
        frame: size and words.
        limits: values that the y axis has to hold; None: of these lines.
    """
    left, right, top, bottom = 44, 12, 10, 36 if frame.foot else 20
    values = [v for one in lines for v in (*one.y, *one.low, *one.high) if math.isfinite(v)]
    values += [0.0] if frame.zero else []
    low, high, ticks = axis(*(limits or (min(values), max(values))))
    places = sorted({x for one in lines for x in one.x})
    first, last = places[0], places[-1] if len(places) > 1 else places[0] + 1

    def across(x: float) -> float:
        return left + 8 + (x - first) / (last - first) * (frame.width - left - right - 16)

    def down(y: float) -> float:
        return top + (high - y) / (high - low) * (frame.height - top - bottom)

    parts = [
        f"<line x1='{left}' x2='{frame.width - right}' y1='{down(t):.1f}' y2='{down(t):.1f}' "
        f"class='{'zero' if frame.zero and t == 0 else 'grid'}'/>"
        f"<text x='{left - 5}' y='{down(t) + 4:.1f}' text-anchor='end'>{t:g}</text>"
        for t in ticks
    ]
    parts += [
        f"<text x='{across(x):.1f}' y='{frame.height - bottom + 14}' text-anchor='middle'>{x:g}</text>" for x in places
    ]
    if frame.foot:
        middle = (left + frame.width) / 2
        parts.append(f"<text x='{middle}' y='{frame.height - 4}' text-anchor='middle'>{html.escape(frame.foot)}</text>")
    for one in lines:
        if one.low and all(map(math.isfinite, (*one.low, *one.high))):
            edge = [*zip(one.x, one.high, strict=True), *reversed([*zip(one.x, one.low, strict=True)])]
            points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in edge)
            parts.append(f"<polygon points='{points}' fill='{one.colour}' fill-opacity='.13'/>")
    for one in lines:
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in zip(one.x, one.y, strict=True))
        parts.append(
            f"<polyline points='{points}' fill='none' stroke='{one.colour}' stroke-width='2'>"
            f"<title>{html.escape(one.name)}</title></polyline>"
        )
    title = html.escape(frame.title)
    return (
        f"<figure><figcaption>{title}</figcaption><svg viewBox='0 0 {frame.width} {frame.height}' role='img' "
        f"aria-label='{title}'>{''.join(parts)}</svg></figure>"
    )
