"""Charts of the page as HTML and SVG that need nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from monai_ssl_transfer.evaluation.robustness import Measured

# Okabe and Ito's colours, told apart by most of those who see red and green alike, then paler ones.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MORE = (*COLOURS, "#7f3c8d", "#80ba5a", "#a5494d", "#3969ac", "#c2a300", "#008695")
OTHER = "#b8b8b8"
RANDOM = "#8a8a8a"


def scatter(points: np.ndarray, colours: Sequence[str], names: Sequence[str], side: int = 300) -> str:
    """Points of a plane.

    Args:
        points: (N, 2).
        colours: N.
        names: N, shown when a pointer rests on a point.
        side: of the drawing.
    """
    share = _shares(points)
    radius = 3.2 if len(points) < 400 else 2.2
    dots = "".join(
        f"<circle cx='{8 + x * (side - 16):.1f}' cy='{8 + (1 - y) * (side - 16):.1f}' r='{radius}' fill='{colour}'>"
        f"<title>{html.escape(name)}</title></circle>"
        for (x, y), colour, name in zip(share, colours, names, strict=True)
    )
    frame = f"<rect x='.5' y='.5' width='{side - 1}' height='{side - 1}' fill='#fff' stroke='#d0d0d0'/>"
    return f"<svg class='map' viewBox='0 0 {side} {side}' role='img' aria-label='map of images'>{frame}{dots}</svg>"


def atlas(pictures: Sequence[tuple[str, int, int]], columns: int, rows: int, cell: int = 50) -> str:
    """Pictures on the grid of a plane.

    Args:
        pictures: (data URI, column, row).
        columns: of the grid.
        rows: of the grid.
        cell: side of a cell.
    """
    shown = "".join(
        f"<image href='{uri}' x='{column * cell + 1}' y='{row * cell + 1}' width='{cell - 2}' height='{cell - 2}'/>"
        for uri, column, row in pictures
    )
    size = f"{columns * cell} {rows * cell}"
    back = f"<rect width='{columns * cell}' height='{rows * cell}' fill='#f4f4f4'/>"
    return f"<svg class='map' viewBox='0 0 {size}' role='img' aria-label='images on the map'>{back}{shown}</svg>"


def _shares(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - low) / np.maximum(high - low, 1e-12))


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], titles: tuple[str, str]) -> str:
    """CKA as squares from white (0) to dark blue (1), with the numbers.

    Args:
        values: (rows, columns).
        rows: names.
        columns: names.
        titles: what the rows and the columns are.
    """
    cell, left, top = 32, 118, 112
    parts = []
    for i, row in enumerate(rows):
        parts.append(f"<text x='{left - 6}' y='{top + i * cell + 20}' text-anchor='end'>{html.escape(row)}</text>")
        for j in range(len(columns)):
            value = float(values[i, j])
            shade, ink = _shade(value)
            shown = "–" if math.isnan(value) else f"{max(value, 0):.2f}".removeprefix("0") if value < 0.995 else "1"
            x, y = left + j * cell, top + i * cell
            parts.append(
                f"<rect x='{x}' y='{y}' width='{cell - 1}' height='{cell - 1}' fill='{shade}'/>"
                f"<text x='{x + cell / 2 - 0.5}' y='{y + 20}' text-anchor='middle' style='fill:{ink}'>{shown}</text>"
            )
    for j, column in enumerate(columns):
        x, y = left + j * cell + 20, top - 6
        parts.append(f"<text x='{x}' y='{y}' transform='rotate(-60 {x} {y})'>{html.escape(column)}</text>")
    width, height = left + len(columns) * cell + 46, top + len(rows) * cell + 22
    parts.append(f"<text x='0' y='12' class='axis'>down: {html.escape(titles[0])}</text>")
    parts.append(f"<text x='0' y='27' class='axis'>across: {html.escape(titles[1])}</text>")
    words = html.escape(f"CKA of {titles[0]} and {titles[1]}")
    box = f"viewBox='0 0 {width} {height}' style='max-width:{width}px'"
    return f"<svg class='heat' {box} role='img' aria-label='{words}'>{''.join(parts)}</svg>"


def _shade(value: float) -> tuple[str, str]:
    """Colour of a square and of the number on it."""
    if math.isnan(value):
        return "#eeeeee", "#444"
    share = min(max(value, 0.0), 1.0)
    white, blue = np.array([255, 255, 255]), np.array([0, 60, 110])
    red, green, other = (white + share * (blue - white)).round().astype(int)
    return f"#{red:02x}{green:02x}{other:02x}", "#fff" if share > 0.55 else "#222"


def dot_chart(
    rows: Mapping[str, Mapping[str, Measured]], colours: Mapping[str, str], low: float, ticks: Sequence[float]
) -> str:
    """One line of dots per row, one dot per encoder, with its interval; the axis ends at 1.

    Positions are percentages of the width and words are HTML, so that the chart is read at any width.

    Args:
        rows: by name, the values by encoder.
        colours: by encoder.
        low: left end of the axis; what lies beyond is drawn as an arrow.
        ticks: numbers on the axis.
    """

    def place(value: float) -> float:
        return 2 + 96 * (min(max(value, low), 1.0) - low) / (1 - low)

    lines = []
    for name, values in rows.items():
        height = 8 + 9 * len(values)
        grid = "".join(
            f"<line x1='{place(tick):.2f}%' x2='{place(tick):.2f}%' y1='0' y2='{height}' "
            f"class='{'zero' if tick == 0 else 'grid'}'/>"
            for tick in ticks
        )
        marks = "".join(_mark(one, 8 + 9 * i, colours[who], low, place) for i, (who, one) in enumerate(values.items()))
        words = html.escape("; ".join(f"{who} {one.value:.2f}" for who, one in values.items()))
        drawn = f"<svg role='img' aria-label='{words}' style='height:{height}px'>{grid}{marks}</svg>"
        lines.append(f"<div class='row'><div class='who'>{html.escape(name)}</div>{drawn}</div>")
    axis = "".join(
        f"<text x='{place(tick):.2f}%' y='12' text-anchor='middle'>{f'{tick:g}'.replace('-', '−')}</text>"
        for tick in ticks
    )
    foot = f"<div class='row'><div></div><svg style='height:16px'>{axis}</svg></div>"
    return f"<div class='dots'>{''.join(lines)}{foot}</div>"


def _mark(one: Measured, y: int, colour: str, low: float, place) -> str:  # type: ignore[no-untyped-def]
    if not math.isfinite(one.value):
        return ""
    bar = ""
    if math.isfinite(one.low):
        bar = (
            f"<line x1='{place(one.low):.2f}%' x2='{place(one.high):.2f}%' y1='{y}' y2='{y}' stroke='{colour}' "
            "stroke-width='2' opacity='.55'/>"
        )
    if one.value < low:
        return bar + f"<text x='0' y='{y + 4}' style='fill:{colour}'>◂</text>"
    return bar + f"<circle cx='{place(one.value):.2f}%' cy='{y}' r='4' fill='{colour}'/>"


def key(colours: Mapping[str, str]) -> str:
    """What the colours mean."""
    items = "".join(
        f"<span><i style='background:{colour}'></i>{html.escape(name)}</span>" for name, colour in colours.items()
    )
    return f"<div class='key'>{items}</div>"


def colours_of(kinds: Sequence[str]) -> dict[str, str]:
    """A colour for each of the 12 most frequent kinds, grey for the others and for those without a kind."""
    counts = sorted(
        {kind: list(kinds).count(kind) for kind in set(kinds) - {""}}.items(), key=lambda one: (-one[1], one[0])
    )
    kept = sorted(name for name, _ in counts[: len(MORE)])
    found = {name: MORE[i] for i, name in enumerate(kept)}
    return found | ({"other": OTHER} if len(counts) > len(MORE) or "" in kinds else {})
