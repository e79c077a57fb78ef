"""Pictures of the frozen encoders' embeddings in a plane."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.planning.matrix import slug
from monai_ssl_transfer.study.report.forest import COLOURS
from monai_ssl_transfer.study.report.run_folder import EMBEDDINGS, RunFolder, read_json
from monai_ssl_transfer.study.report.section import Section
from monai_ssl_transfer.study.statistics.analysis import Analysis

MOST = 800
"""Points that are drawn of one encoder."""
_SIZE, _EDGE = 240, 8
_SHAPES = ("circle", "square", "triangle")


def embedding_section(run: RunFolder, analysis: Analysis) -> Section | None:
    """Return the planes of all encoders by task; None where none were made."""
    parts, thinned, methods = [], 0, []
    names = {slug(one.cell.initialisation): one.cell.initialisation for one in analysis.declaration.cells}
    tasks = {slug(one.cell.task): one.cell.task for one in analysis.declaration.cells}
    for folder in sorted(path for path in (run.folder / EMBEDDINGS).glob("*") if path.is_dir()):
        planes = {names.get(file.stem, file.stem): _read(file) for file in sorted(folder.glob("*.json"))}
        if not planes:
            continue
        ordered = {name: planes[name] for name in [*names.values(), *planes] if name in planes}
        thinned = max(thinned, *(len(one["points"]) for one in ordered.values()))
        methods += [str(one.get("method", "")) for one in ordered.values()]
        plots = "".join(_plot(name, one) for name, one in ordered.items())
        parts.append(
            f"<h3>{html.escape(tasks.get(folder.name, folder.name))}</h3>{_key(next(iter(ordered.values())))}"
            f"<div class='curves'>{plots}</div>"
        )
    if not parts:
        return None
    method = ", ".join(dict.fromkeys(one for one in methods if one)) or "a plane"
    few = f" Of more than {MOST} images, {MOST} evenly spaced ones are drawn." if thinned > MOST else ""
    note = (
        f"Every point is an image, every picture has its own axes ({method} of the frozen encoder's embeddings, "
        "before any "
        f"training on the task).{few} Pictures to look at: nothing here is tested, and t-SNE and UMAP keep "
        "neighbours, not "
        "distances."
    )
    return Section("Embeddings", pictures="".join(parts), notes=(note,))


def _read(file: Path) -> dict[str, Any]:
    content = read_json(file)
    try:
        points, labels = content["points"], content["labels"]
        whole = len(points) == len(labels) and len(points) > 0 and all(len(point) == 2 for point in points)
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} holds no plane: delete it and run the study again.") from error
    if not whole:
        raise DataError(f"{file} has {len(points)} points and {len(labels)} labels: delete it and run the study again.")
    return dict(content)


def _classes(plane: Mapping[str, Any]) -> list[Any]:
    """The labels that occur, in their order."""
    return sorted(set(plane["labels"]), key=lambda label: (str(type(label)), label))


def _style(number: int) -> tuple[str, str]:
    """Colour and shape of the n-th class; the shape changes where the colours come round."""
    return COLOURS[number % len(COLOURS)], _SHAPES[(number // len(COLOURS)) % len(_SHAPES)]


def _key(plane: Mapping[str, Any]) -> str:
    names = list(plane.get("class_names", ()))
    words = []
    for number, label in enumerate(_classes(plane)):
        colour, shape = _style(number)
        known = isinstance(label, int) and 0 <= label < len(names)
        name = names[label] if known else "none" if label == -1 else str(label)
        mark = f"<svg viewBox='0 0 10 10' class='mark'>{_mark(5, 5, 4, colour, shape)}</svg>"
        words.append(f"<span>{mark}{html.escape(str(name))}</span>")
    return f"<div class='key'>{''.join(words)}</div>"


def _plot(name: str, plane: Mapping[str, Any]) -> str:
    points, labels = plane["points"], plane["labels"]
    step = max(1, -(-len(points) // MOST))
    chosen = list(range(0, len(points), step))
    across = _scale([float(points[i][0]) for i in chosen])
    down = _scale([-float(points[i][1]) for i in chosen])
    styles = {label: _style(number) for number, label in enumerate(_classes(plane))}
    marks = "".join(_mark(x, y, 2.2, *styles[labels[i]]) for i, x, y in zip(chosen, across, down, strict=True))
    title = html.escape(name)
    return (
        f"<figure><figcaption>{title}</figcaption><svg viewBox='0 0 {_SIZE} {_SIZE}' class='plane' role='img' "
        f"aria-label='{title}: {len(chosen)} images in a plane'>{marks}</svg></figure>"
    )


def _scale(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return [_EDGE + (value - low) / width * (_SIZE - 2 * _EDGE) for value in values]


def _mark(x: float, y: float, r: float, colour: str, shape: str) -> str:
    if shape == "circle":
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{r}' fill='{colour}' fill-opacity='.7'/>"
    edge = [(-r, -r), (r, -r), (r, r), (-r, r)] if shape == "square" else [(0, -1.3 * r), (1.2 * r, r), (-1.2 * r, r)]
    corners = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in edge)
    return f"<polygon points='{corners}' fill='{colour}' fill-opacity='.7'/>"
