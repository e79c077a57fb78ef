"""Classes of frames as the user gives them: a table of files and labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

CLASSES_FILE = "classes.json"


def read_frame_labels(table: str | Path, paths: Sequence[str], source: Path, store: Path) -> dict[str, int]:
    """Class of each file that a table names; the names of the classes are kept in ``<store>/classes.json``.

    Args:
        table: CSV with a header; first column a file (absolute, or below ``source``), second column its label. Further
            columns are not read. Labels that are all whole numbers from 0 are taken as they are.
        paths: absolute paths of all files that are met.
        source: folder that is ingested.
        store: its class names, from this ingest and those before, are numbered in the order in which they came.

    Returns:
        Number of the class by absolute path.

    Raises:
        DataError: the table cannot be read, gives a file two labels, or names a file that is not there.
    """
    rows = _rows(Path(table))
    known, root = set(paths), source if source.is_dir() else source.parent
    named: dict[str, str] = {}
    for file, label in rows:
        path = file if file in known else str(root / file)
        if path not in known:
            raise DataError(f"{table} names {file}, which is not below {source}: correct the table or the source")
        if named.setdefault(path, label) != label:
            raise DataError(f"{table} gives {file} the labels {named[path]} and {label}: leave one of them")
    numbers = _numbers(sorted(set(named.values())), Path(table), store)
    return {path: numbers[label] for path, label in named.items()}


def _rows(table: Path) -> list[tuple[str, str]]:
    try:
        lines = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))[1:]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a table ({error}): give a CSV file of file and label") from error
    rows = [(line[0].strip(), line[1].strip()) for line in lines if len(line) > 1 and line[0].strip()]
    if not rows or not all(label for _, label in rows) or len(rows) != sum(1 for line in lines if any(line)):
        raise DataError(f"{table} needs a header and a file and a label in every row: complete it")
    return rows


def _numbers(labels: list[str], table: Path, store: Path) -> dict[str, int]:
    if all(label.isascii() and label.isdigit() for label in labels):
        numbers = {label: int(label) for label in labels}
    else:
        file = store / CLASSES_FILE
        names = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        names += [label for label in labels if label not in names]
        numbers = {name: number for number, name in enumerate(names)}
        content = json.dumps(names, indent=1, ensure_ascii=False) + "\n"
        write_durably(file, lambda stream: stream.write(content.encode()))
    if max(numbers.values()) > 32767:
        raise DataError(f"{table} has a label above 32767: number the classes from 0")
    return numbers
