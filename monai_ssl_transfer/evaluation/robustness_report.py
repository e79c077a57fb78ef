"""Table and figure of a robustness grid: CSV, JSON, Markdown, PNG and a page that opens without a network."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend must be chosen first

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.evaluation.robustness import FEW_GROUPS, Measured, RobustnessResult

_COLUMNS = 4
_HEAD = ("corruption", "mean drop", "relative robustness")


def write_report(result: RobustnessResult, out: Path, title: str) -> Path:
    """Write `robustness.csv` (a row per cell), `.json`, `.md`, `.png` and `.html`; return the page.

    Args:
        result: of the grid.
        out: folder.
        title: what was judged, e.g. the bundle's name.
    """
    picture = _figure(result)
    files = {
        "robustness.csv": _table(result).encode(),
        "robustness.json": (json.dumps(_no_nan(asdict(result)), indent=1) + "\n").encode(),
        "robustness.md": markdown(result, title).encode(),
        "robustness.png": picture,
        "robustness.html": _page(result, title, picture).encode(),
    }
    for name, content in files.items():
        write_durably(out / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    return out / "robustness.html"


def markdown(result: RobustnessResult, title: str) -> str:
    """The summary as Markdown, ordered by what is lost."""
    lines = [f"# {title}: robustness", "", *_sentences(result), "", f"| {' | '.join(_HEAD)} |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(result)]
    return "\n".join([*lines, "", "![score by severity](robustness.png)", ""])


def _sentences(result: RobustnessResult) -> list[str]:
    better = "higher" if result.higher_is_better else "lower"
    kept = "score / clean score" if result.higher_is_better else "clean error / error"
    found = [
        f"Score: {result.metric} ({better} is better) of {result.cases} cases in {result.groups} groups; clean images "
        f"{shown(result.clean)}. Mean drop: what is lost against the clean images, mean over severities. Relative "
        f"robustness: {kept}, mean over severities. 95 % intervals in brackets: bootstrap of groups, paired.",
    ]
    if result.groups < FEW_GROUPS:
        found.append(f"Only {result.groups} groups: the intervals are too narrow to be believed.")
    return found


def _rows(result: RobustnessResult) -> list[tuple[str, str, str]]:
    means = sorted(result.means.items(), key=lambda pair: -pair[1][0].value)
    rows = [(name.replace("_", " "), shown(drop), shown(relative)) for name, (drop, relative) in means]
    drop, relative = result.overall
    return [*rows, ("all, each weighing the same", shown(drop), shown(relative))]


def shown(one: Measured) -> str:
    """A number with its interval, as text."""
    if not math.isfinite(one.value):
        return "not defined"
    return f"{one.value:.3f}" + (f" ({one.low:.3f} to {one.high:.3f})" if math.isfinite(one.low) else "")


def _table(result: RobustnessResult) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    parts = ("score", "drop", "relative")
    head = [f"{part}{end}" for part in parts for end in ("", "_low", "_high")]
    writer.writerow(["corruption", "severity", "metric", *head])
    clean, nothing, whole = result.clean, Measured(0.0, 0.0, 0.0), Measured(1.0, 1.0, 1.0)
    rows = [("clean", 0, (clean, nothing, whole))]
    rows += [(one.corruption, one.severity, (one.score, one.drop, one.relative)) for one in result.cells]
    for name, severity, measured in rows:
        cells = [value for one in measured for value in (one.value, one.low, one.high)]
        writer.writerow([name, severity, result.metric, *("" if math.isnan(v) else f"{v:.6g}" for v in cells)])
    return text.getvalue()


def _figure(result: RobustnessResult) -> bytes:
    """Score by severity, one small plot per corruption, all on one scale."""
    names = list(result.means)
    rows = -(-len(names) // _COLUMNS)
    figure, axes = plt.subplots(
        rows, _COLUMNS, figsize=(2.9 * _COLUMNS, 2.1 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        cells = [cell for cell in result.cells if cell.corruption == name]
        x = [0, *(cell.severity for cell in cells)]
        points = [result.clean, *(cell.score for cell in cells)]
        if all(math.isfinite(point.low) for point in points):
            axis.fill_between(x, [p.low for p in points], [p.high for p in points], color="#3a8ee8", alpha=0.2, lw=0)
        axis.axhline(result.clean.value, color="#999", lw=0.8, ls="--")
        axis.plot(x, [point.value for point in points], color="#1f6fc4", marker="o", ms=3)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xticks(range(6))
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for row in axes:
        row[0].set_ylabel(result.metric if len(result.metric) < 24 else "score", fontsize=8)
    figure.supxlabel("severity (0: clean)", fontsize=9)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    plt.close(figure)
    return buffer.getvalue()


def _page(result: RobustnessResult, title: str, picture: bytes) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>" for row in _rows(result))
    head = "".join(f"<th>{one}</th>" for one in _HEAD)
    text = "".join(f"<p>{html.escape(one)}</p>" for one in _sentences(result))
    image = base64.b64encode(picture).decode()
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}: robustness</title><style>body{{font:16px/1.45 sans-serif;max-width:62rem;"
        "margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}td,th{padding:.25rem .8rem;text-align:left;"
        "border-bottom:1px solid #ddd}img{max-width:100%}div{overflow-x:auto}</style>"
        f"<h1>{html.escape(title)}: robustness</h1>{text}"
        f'<img alt="score by severity for every corruption" src="data:image/png;base64,{image}">'
        f"<div><table><tr>{head}</tr>{cells}</table></div></html>\n"
    )


def _no_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _no_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
