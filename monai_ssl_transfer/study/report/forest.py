"""Forest plots and label-efficiency curves as HTML and SVG that need nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from monai_ssl_transfer.study.report.printing import amount, interval, p_value, percent
from monai_ssl_transfer.study.statistics.analysis import ALPHA, Compared

# Okabe and Ito's colours and a brown, told apart by most of those who see red and green alike; blue first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D31")


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Give every initialisation its colour, the same in all pictures of a report."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def forest(rows: Sequence[tuple[Compared, float]], colours: dict[str, str]) -> str:
    """Draw the differences of some comparisons with their intervals.

    Positions are percentages of the width and words are HTML, so that the plot is read at any width.

    Args:
        rows: comparisons of one printed unit, with Holm's p.
        colours: of the candidates.

    Returns:
        HTML; intervals that reach over the axis end in an arrow.
    """
    limit = _limit([one for one, _ in rows])
    ticks = _ticks(limit)
    lines, last = [], ""
    several = len({one.comparison.candidate.protocol for one, _ in rows}) > 1
    for one, p in rows:
        cell = one.comparison.candidate
        labels = "" if cell.fraction == 1 else f", {percent(cell.fraction)}"
        protocol = f", {cell.protocol}" if several and cell.protocol else ""
        heading = f"{cell.task}{labels}{protocol}: {one.metric.name}"
        shown = f"<div class='where'>{html.escape(heading)}</div>" if heading != last else ""
        last = heading
        lines.append(shown + _forest_row(one, p, limit, ticks, colours))
    unit = rows[0][0].metric.ruler if rows else ""
    axis = "".join(
        f"<text x='{_position(tick, limit):.2f}%' y='14' text-anchor='middle'>{_signed(tick)}</text>" for tick in ticks
    )
    name = f"difference{f' in {unit}' if unit else ''}; right of 0 the candidate's value is larger"
    foot = f"<div class='row'><div></div><svg class='axis' role='presentation'>{axis}</svg><div></div></div>"
    if all(one.difference is None for one, _ in rows):  # an axis of nothing would show invented numbers
        return f"<div class='forest'>{''.join(lines)}</div>"
    return f"<div class='forest'>{''.join(lines)}{foot}<p class='note'>{name}</p></div>"


def _forest_row(one: Compared, p: float, limit: float, ticks: Sequence[float], colours: dict[str, str]) -> str:
    candidate, difference, scale = one.comparison.candidate.initialisation, one.difference, one.metric.scale
    if difference is None:
        return f"<div class='row'><div class='who'>{html.escape(candidate)}</div><div>not run</div><div></div></div>"
    colour = colours.get(candidate, COLOURS[0])
    value = difference.value * scale
    low, high = difference.low * scale, difference.high * scale
    grid = "".join(
        f"<line x1='{_position(tick, limit):.2f}%' x2='{_position(tick, limit):.2f}%' y1='0' y2='22' "
        f"class='{'zero' if tick == 0 else 'grid'}'/>"
        for tick in ticks
    )
    bar = ""
    if math.isfinite(low) and math.isfinite(high):
        left, right = _position(low, limit), _position(high, limit)
        bar = f"<line x1='{left:.2f}%' x2='{right:.2f}%' y1='11' y2='11' stroke='{colour}' stroke-width='2'/>"
        bar += _arrow("0%", "◂", "start", colour) if low < -limit else ""
        bar += _arrow("100%", "▸", "end", colour) if high > limit else ""
    filled = colour if p < ALPHA else "#fff"
    centre = f"cx='{_position(value, limit):.2f}%' cy='11' r='4.5'"
    mark = f"<circle {centre} fill='{filled}' stroke='{colour}' stroke-width='2'/>"
    ends = interval(difference.low, difference.high, one.metric)
    numbers = f"{amount(difference.value, one.metric, signed=True)} ({ends})"
    words = f"{numbers}, p Holm {p_value(p)}"
    title = html.escape(f"{candidate}: {words}")
    return (
        f"<div class='row'><div class='who' style='color:{colour}'>{html.escape(candidate)}</div>"
        f"<svg role='img' aria-label='{title}'>{grid}{bar}{mark}</svg>"
        f"<div class='say'>{html.escape(numbers.replace('-', '−'))}</div></div>"
    )


def _arrow(x: str, sign: str, anchor: str, colour: str) -> str:
    return f"<text x='{x}' y='15.5' text-anchor='{anchor}' fill='{colour}'>{sign}</text>"


def _limit(rows: Sequence[Compared]) -> float:
    """Half the axis: every estimate, and all intervals but the widest tenth."""
    ends: list[float] = []
    largest = 0.0
    for one in rows:
        if one.difference is not None:
            scale = one.metric.scale
            largest = max(largest, abs(one.difference.value) * scale)
            ends.append(max(abs(one.difference.low), abs(one.difference.high), abs(one.difference.value)) * scale)
    finite = sorted(end for end in ends if math.isfinite(end))
    usual = finite[min(len(finite) - 1, int(0.9 * len(finite)))] if finite else 0.0
    return max(1.1 * largest, 1.05 * min(usual, 4 * largest), 1e-9)


def _ticks(limit: float) -> list[float]:
    """Round numbers from about -limit to limit, five to nine of them."""
    power = 10.0 ** math.floor(math.log10(limit))
    step = next(step for step in (power / 5, power / 2, power, power * 2, power * 5) if limit / step <= 4)
    count = int(limit / step)
    return [index * step for index in range(-count, count + 1)]


def _position(value: float, limit: float) -> float:
    """Percentage of the width, kept inside of the plot."""
    return 50 + 48 * max(-1.0, min(1.0, value / limit))


def _signed(tick: float) -> str:
    return "0" if tick == 0 else f"{tick:+.10g}".replace("-", "−")
