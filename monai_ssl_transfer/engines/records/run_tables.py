"""Text of ``ssl-transfer runs``: plain tables that fit 120 columns, or JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_ssl_transfer.engines.records.run_listing import (
    RECORD_FILE,
    Row,
    find_runs,
    read_epochs,
    read_record,
    run_row,
)

WIDTH = 120
_GAP = "  "
_NARROWEST = 14

Column = tuple[str, str, Callable[[Any], str], int]


def listing(folders: Sequence[Path], as_json: bool = False) -> str:
    """What ``ssl-transfer runs`` prints: a run's epochs when the folder of one is given, else a table of runs.

    Args:
        folders: of runs, or above them.
        as_json: the same as JSON, with every figure.

    Raises:
        DataError: when there is no run, or a file of one is damaged.
    """
    if len(folders) == 1 and (folders[0] / RECORD_FILE).is_file():
        return _one_run(folders[0], as_json)
    runs = find_runs(folders)
    rows = [run_row(run, _name(run, folders)) for run in runs]
    if as_json:
        return json.dumps(rows, indent=2)
    reasons = [f"{row['run']}: {row['reason']}" for row in rows if row["reason"]]
    return "\n".join([_table(rows, _run_columns(rows)), *map(_wrapped, reasons)])


def _one_run(run: Path, as_json: bool) -> str:
    row, record, epochs = run_row(run, str(run)), read_record(run), read_epochs(run)
    if as_json:
        return json.dumps({**row, "starts": record["starts"], "records": epochs}, indent=2)
    start = record["starts"][-1]
    facts = [
        f"{run}: {row['method']}, {row['encoder'] or 'encoder unknown'}, {row['data'] or 'data unknown'}",
        f"{row['state']} in epoch {row['epoch']} of {row['epochs']}" + (f": {row['reason']}" if row["reason"] else ""),
        f"last started {_moment(start.get('started'))} (start {len(record['starts'])}), {start.get('device')}, "
        f"processes: {start.get('processes')}",
        f"command: {start.get('command')}",
    ]
    shown = [column for column in _EPOCH_COLUMNS if any(_told(column[0], one) for one in epochs)]
    table = _table(epochs, shown) if epochs else "no epoch is finished yet"
    return "\n".join([*map(_wrapped, facts), "", table])


def _told(key: str, record: Row) -> bool:
    """Whether a figure deserves a column: skipped steps only where there are any."""
    return bool(record.get(key)) if key == "skipped" else key in record


def _name(run: Path, folders: Sequence[Path]) -> str:
    """The run's path below the folder that was given, if that is one, else as it was given."""
    return str(run.relative_to(folders[0])) if len(folders) == 1 and run != folders[0] else str(run)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    cells = [[title for _, title, _, _ in columns]]
    for row in rows:
        cells.append(["-" if row.get(key) is None else form(row[key]) for key, _, form, _ in columns])
    longest = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths = [min(most, length) for (*_, most), length in zip(columns, longest, strict=True)]
    lines = []
    for line in cells:
        placed = [_cut(cell, width) for cell, width in zip(line, widths, strict=True)]
        # names to the left, figures to the right
        aligned = [
            cell.ljust(width) if form is str else cell.rjust(width)
            for cell, width, (_, _, form, _) in zip(placed, widths, columns, strict=True)
        ]
        lines.append(_GAP.join(aligned).rstrip())
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    """The end of a text: runs differ in the ends of their paths."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _run_columns(rows: Sequence[Row]) -> list[Column]:
    fixed = _RUN_COLUMNS
    for row in rows:
        row["progress"] = f"{row['epoch']}/{row['epochs']}"
    taken = _GAP.join("x" * most for *_, most in fixed)
    return [("run", "run", str, max(WIDTH - len(taken) - len(_GAP), _NARROWEST)), *fixed]


def _count(number: int) -> str:
    """A number of images in at most 5 characters."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            amount = number / (10**3 if unit == "k" else size)
            return f"{amount:.1f}{unit}" if amount < 100 else f"{amount:.0f}{unit}"
    return str(number)


def _share(value: float) -> str:
    return f"{value:.1%}"


def _moment(text: str | None) -> str:
    """Local time of a moment that is recorded in UTC."""
    return "?" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def _ago(text: str) -> str:
    minutes = (datetime.now(timezone.utc) - datetime.fromisoformat(text)).total_seconds() / 60
    for size, unit in ((1440, "d"), (60, "h")):
        if minutes >= 2 * size:
            return f"{minutes / size:.0f} {unit} ago"
    return f"{minutes:.0f} min ago"


def _figure(form: str) -> Callable[[Any], str]:
    return lambda value: format(value, form)


_RUN_COLUMNS: list[Column] = [
    ("method", "method", str, 13),
    ("encoder", "encoder", str, 12),
    ("images", "images", _count, 6),
    ("progress", "epochs", _figure(""), 7),
    ("state", "state", str, 10),
    ("loss", "loss", _figure(".4g"), 6),
    ("best_knn", "best kNN", _share, 8),
    ("last_knn", "last", _share, 6),
    ("images_per_second", "images/s", _figure(".0f"), 8),
    ("updated", "when", _ago, 11),
]
_EPOCH_COLUMNS: list[Column] = [
    ("epoch", "epoch", _figure("d"), 6),
    ("loss", "loss", _figure(".4f"), 10),
    ("learning_rate", "rate", _figure(".3g"), 9),
    ("momentum", "momentum", _figure(".5f"), 8),
    ("embedding_spread", "spread", _figure(".3f"), 6),
    ("effective_rank", "rank", _figure(".1f"), 7),
    ("teacher_entropy", "teacher entropy", _figure(".3f"), 15),
    ("knn_accuracy", "kNN", _share, 6),
    ("skipped", "skipped", _figure(".0f"), 7),
    ("images_per_second", "images/s", _figure(".0f"), 8),
    ("wait", "wait", _figure(".0%"), 4),
    ("time", "when", _moment, 16),
]
