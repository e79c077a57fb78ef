"""The values of one finished cell of a study, from the files that its evaluation wrote.

| evaluation | values per case | values of the whole test set |
|---|---|---|
| segmentation | dice, iou, precision, recall, hd95, nsd; with several classes their mean, and `<class>_dice` ...; `dice_positives` where some cases do not show the class | |
| several findings per image | | auroc, average_precision, `<finding>_auroc`, `<finding>_average_precision` |
| classification | accuracy (0 or 1) | balanced_accuracy, macro_f1, mcc, auroc, average_precision, sensitivity_at_specificity_0.9 ... |
| detection | best_iou | map, map_50, map_75, recall, f1 |
| depth | rmse_mm, mae_mm, median_relative_error | |

Where a probe drew its cases repeatedly, a value is the mean over all draws; of a case's accuracy that is the share of
draws in which it was right.

A value that is not defined (no surface asked for, a class that nobody has) has no row.
"""  # noqa: E501

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.result_names import DRAWS, JUDGED_FILE

CELL_FILE = "cell.json"
DONE = "done"
_SETTINGS = frozenset(("tolerance_mm", "score_threshold", "threshold"))
_SEGMENTATION = ("dice", "iou", "precision", "recall", "hd95", "nsd")
_DEPTH = ("rmse_mm", "mae_mm", "median_relative_error")

Row = dict[str, str]
Value = tuple[str, str, str, float]
"""Case, group, metric, value; case and group are empty for a value of the whole test set."""


def values_of(cell_folder: Path) -> list[dict[str, Any]]:
    """Return the rows of `results.SCHEMA` that a finished cell gives; a failed one gives none.

    Args:
        cell_folder: with cell.json and its evaluation.

    Raises:
        DataError: cell.json or a file of the evaluation is not there, damaged or of another kind.
    """
    record = read_cell(cell_folder)
    if record["status"] != DONE:
        return []
    folder = cell_folder / str(record.get("evaluation") or "eval")
    cell = {key: record["cell"][key] for key in ("study", "task", "initialisation", "protocol", "fraction", "seed")}
    rows = [
        {**cell, "case": case, "group": group, "metric": metric, "value": value}
        for case, group, metric, value in _over_draws(folder)
        if math.isfinite(value)
    ]
    if not rows:
        raise DataError(f"{folder} holds no value that is defined: delete {cell_folder.name} and run the study again.")
    return rows


def read_cell(cell_folder: Path) -> dict[str, Any]:
    """Return the record of a cell that was run.

    Raises:
        DataError: it is not there or damaged, so that the cell was not run to its end.
    """
    file = cell_folder / CELL_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        _ = record["status"], record["cell"]["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not there or damaged: run the study again, it goes on with this cell.") from error
    return dict(record)


def _over_draws(folder: Path) -> list[Value]:
    """Mean over the draws of a probe: the values of one draw would be luck; a value that one of them lacks has none."""
    draws = [one for one in sorted((folder / DRAWS).glob("*")) if one.is_dir()]
    if not draws:
        return _values(folder)
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for draw in draws:
        for case, group, metric, value in _values(draw):
            found[case, group, metric].append(value)
    return [(*key, sum(values) / len(values)) for key, values in found.items() if len(values) == len(draws)]


def _values(folder: Path) -> list[Value]:
    """Read an evaluation by the columns of its metrics.csv."""
    header, rows = _table(folder / "metrics.csv")
    judged = _judged(folder)
    groups = {row["case"]: row["group"] for row in judged}
    if {"case", "class", "dice"} <= header:
        return list(_segmentation(rows, groups))
    if {"name", *_DEPTH[:1]} <= header:
        return [
            (row["name"], groups.get(row["name"], row.get("video", "")), metric, _number(row, metric))
            for row in rows
            for metric in _DEPTH
        ]
    if {"name", "hits", "best_iou"} <= header:
        return list(_detection(folder, rows, judged, groups))
    if {"name", "positives", "auroc", "average_precision"} <= header:
        return list(_findings(folder, rows))
    if {"name", "support", "auroc"} <= header:
        return list(_classification(folder, judged))
    raise DataError(f"{folder / 'metrics.csv'} is of no evaluation that is known here: use one of the task bundles.")


def _segmentation(rows: list[Row], groups: Mapping[str, str]) -> Iterator[Value]:
    """Per case the mean over classes, and each class where there are several."""
    names = list(dict.fromkeys(row["class"] for row in rows))
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        for metric in _SEGMENTATION:
            if metric in row:
                found[row["case"], metric][row["class"]] = _number(row, metric)
    for (case, metric), by_class in found.items():
        group = groups.get(case, "")
        defined = [value for value in by_class.values() if math.isfinite(value)]
        if len(defined) == len(names):
            yield case, group, metric, sum(defined) / len(defined)
        if len(names) > 1:
            yield from ((case, group, f"{name}_{metric}", value) for name, value in by_class.items())
    yield from _positives(rows, names, groups)


def _positives(rows: list[Row], names: list[str], groups: Mapping[str, str]) -> Iterator[Value]:
    """Dice of the cases that show the class, where others do not: an empty prediction is worth 1 on those."""
    truth = "true_pixels" if rows and "true_pixels" in rows[0] else "true_ml"
    if not rows or truth not in rows[0]:
        return
    for name in names:
        own = [row for row in rows if row["class"] == name]
        shown = [row for row in own if _number(row, truth) > 0]
        if 0 < len(shown) < len(own):
            metric = "dice_positives" if len(names) == 1 else f"{name}_dice_positives"
            yield from ((row["case"], groups.get(row["case"], ""), metric, _number(row, "dice")) for row in shown)


def _classification(folder: Path, judged: list[Row]) -> Iterator[Value]:
    """Right or wrong per case, and what is only known of all cases together."""
    right = judged or _of_predictions(folder)
    yield from ((row["case"], row["group"], "accuracy", _number(row, "gained")) for row in right)
    yield from (("", "", name, value) for name, value in _summary(folder) if name != "accuracy" or not right)


def _findings(folder: Path, rows: list[Row]) -> Iterator[Value]:
    """Several findings per image: what judged.csv holds of a case is a share of the AUROC, no value of its own."""
    for row in rows:
        for metric in ("auroc", "average_precision"):
            yield "", "", f"{row['name']}_{metric}", _number(row, metric)
    yield from (("", "", name, value) for name, value in _summary(folder))


def _detection(folder: Path, rows: list[Row], judged: list[Row], groups: Mapping[str, str]) -> Iterator[Value]:
    """Overlap of the best box per photograph; average precision and F1 of all together."""
    for row in rows:
        yield row["name"], groups.get(row["name"], ""), "best_iou", _number(row, "best_iou")
    yield from (("", "", name, value) for name, value in _summary(folder))
    possible = sum(float(row["possible"]) for row in judged)
    if possible:
        yield "", "", "f1", sum(float(row["gained"]) for row in judged) / possible


def _summary(folder: Path) -> Iterator[tuple[str, float]]:
    """Numbers of summary.json that are no counts and no settings, and those of the class that is looked for."""
    file = folder / "summary.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        finding = content.get("finding") or {}
        points = {f"sensitivity_at_specificity_{p['specificity_asked']:g}": p["sensitivity"]
                  for p in finding.get("sensitivity_at_specificity", ())}  # fmt: skip
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not there or damaged: delete this cell and run the study again.") from error
    for name, value in {**finding, **content, **points}.items():
        if isinstance(value, float) and name not in _SETTINGS:
            yield name, value


def _judged(folder: Path) -> list[Row]:
    """What every case added to the score, with its patient or scene; none where the file was not written."""
    file = folder / JUDGED_FILE
    if not file.is_file():
        return []
    header, rows = _table(file)
    if not {"case", "group", "gained", "possible"} <= header:
        raise DataError(f"{file} lacks a column: delete this cell and run the study again.")
    return rows


def _of_predictions(folder: Path) -> list[Row]:
    """The same from predictions.csv, where "truth" names one class."""
    file = folder / "predictions.csv"
    if not file.is_file():
        return []
    header, rows = _table(file)
    if not {"file", "truth", "predicted"} <= header:
        return []
    return [
        {"case": row["file"], "group": row.get("group", ""), "possible": "1",
         "gained": str(float(row["truth"] == row["predicted"]))}
        for row in rows
    ]  # fmt: skip


def _table(file: Path) -> tuple[set[str], list[Row]]:
    try:
        # a file's name may hold bytes that are no text; Parquet takes text only
        with file.open(newline="", encoding="utf-8", errors="backslashreplace") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except OSError as error:
        raise DataError(f"{file} is not there: delete this cell and run the study again.") from error
    return set(reader.fieldnames or ()), rows


def _number(row: Row, column: str) -> float:
    """A cell's number; an empty one is not a number."""
    text = row.get(column) or "nan"
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"'{text}' is no {column}: delete this cell and run the study again.") from error
