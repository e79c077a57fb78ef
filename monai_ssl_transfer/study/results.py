"""The tidy table of results: one row per run, case and metric; read and written as Parquet and CSV."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

RESULTS_NAME = "results.parquet"
SCHEMA = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("initialisation", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("fraction", pa.float64(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("case", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)
CELL_COLUMNS = ("study", "task", "initialisation", "protocol", "fraction")
_DEFAULTS: Mapping[str, Any] = {"study": "", "protocol": "", "fraction": 1.0, "case": "", "group": ""}


@dataclass(frozen=True, order=True)
class Cell:
    """What was trained and judged, apart from the seed.

    Args:
        study: experiment that the cell belongs to, such as "E1"; may be empty.
        task: data and question, such as "LiTS".
        initialisation: where the encoder's weights came from.
        protocol: how it was transferred, such as "fine-tuning"; may be empty.
        fraction: part of the training data, 1 for all.
    """

    study: str
    task: str
    initialisation: str
    protocol: str
    fraction: float


@dataclass(frozen=True)
class CaseValues:
    """A metric of every case of one cell, averaged over the seeds that judged it.

    Args:
        values: case -> value.
        groups: case -> patient; the case itself where no patient is named.
    """

    values: Mapping[str, float]
    groups: Mapping[str, str]


class Results:
    """A checked table of results.

    Args:
        table: columns of `SCHEMA`; those with a default (study, protocol, fraction, case, group) may be missing.
        name: file or study that error messages name.

    Raises:
        DataError: a column is missing or of a wrong type, a value is not finite, a row is there twice, a case belongs
            to two groups, or a metric of one run has rows with and without cases.
    """

    def __init__(self, table: pa.Table, name: str = "the table of results") -> None:
        self.table = _fitting(table, name)
        self.name = name
        _refuse_unusable_values(self.table, name)
        _refuse_duplicates(self.table, name)
        _refuse_two_groups(self.table, name)
        self._seeds = _mean_of_each_seed(self.table, name)

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]], name: str = "the table of results") -> Results:
        """Build a table from dictionaries of the columns."""
        return cls(pa.Table.from_pylist(list(rows), schema=SCHEMA), name)

    def __len__(self) -> int:
        return len(self.table)

    def cells(self) -> list[Cell]:
        """Every cell of the table, in the order of its first row."""
        return list(dict.fromkeys(cell for cell, _ in self._seeds))

    def metrics(self, cell: Cell) -> list[str]:
        """The metrics of a cell, in the order of their first row."""
        return [metric for one, metric in self._seeds if one == cell]

    def per_seed(self, cell: Cell, metric: str) -> dict[int, float]:
        """Return seed -> value; the mean over the cases where the table has cases; empty where nothing was run."""
        return dict(self._seeds.get((cell, metric), {}))

    def per_case(self, cell: Cell, metric: str) -> CaseValues | None:
        """Return the values of the cases of a cell, or None where the table has none for it."""
        chosen = pc.equal(self.table["metric"], metric)
        for column, wanted in zip(CELL_COLUMNS, astuple(cell), strict=True):
            chosen = pc.and_(chosen, pc.equal(self.table[column], wanted))
        rows = self.table.filter(pc.and_(chosen, pc.not_equal(self.table["case"], "")))
        if not len(rows):
            return None
        values: dict[str, list[float]] = defaultdict(list)
        groups: dict[str, str] = {}
        columns = (rows[name].to_pylist() for name in ("case", "group", "value"))
        for case, group, value in zip(*columns, strict=True):
            values[case].append(value)
            groups[case] = group or case
        return CaseValues({case: float(np.mean(found)) for case, found in values.items()}, groups)


def read_results(file: Path) -> Results:
    """Read a table of results.

    Args:
        file: Parquet, or CSV with a header line.

    Raises:
        DataError: the file is not there, is damaged, or is another table.
    """
    try:
        if file.suffix.lower() == ".csv":
            text = {name: SCHEMA.field(name).type for name in SCHEMA.names}
            options = pa_csv.ConvertOptions(column_types=text, strings_can_be_null=False)
            table = pa_csv.read_csv(file, convert_options=options)
        else:
            table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file} cannot be read as a table of results ({reason}): give a whole Parquet or CSV file."
        ) from (error)
    return Results(table, str(file))


def write_results(results: Results, file: Path) -> None:
    """Write a table of results whole or not at all.

    Args:
        file: ends in ``.csv`` for text, else Parquet is written.
    """
    if file.suffix.lower() == ".csv":
        write_durably(file, lambda stream: pa_csv.write_csv(results.table, stream))
    else:
        write_durably(file, lambda stream: pq.write_table(results.table, stream, compression="zstd"))


def missing_seeds(results: Results, cell: Cell, metric: str, seeds: Sequence[int]) -> list[int]:
    """Return the declared seeds of a cell that have no value."""
    found = results.per_seed(cell, metric)
    return [seed for seed in seeds if seed not in found]


def _fitting(table: pa.Table, name: str) -> pa.Table:
    for column, default in _DEFAULTS.items():
        if column not in table.column_names:
            table = table.append_column(
                SCHEMA.field(column), pa.array([default] * len(table), SCHEMA.field(column).type)
            )
    absent = [column for column in SCHEMA.names if column not in table.column_names]
    if absent:
        raise DataError(
            f"{name} is no table of results, because it has no column {', '.join(absent)}: see docs/studies.md."
        )
    if not len(table):
        raise DataError(f"{name} has no rows: give the table of a study that was run.")
    table = table.select(SCHEMA.names)
    for column in table.column_names:
        if table[column].null_count:
            raise DataError(f"{name} has rows without a {column}: fill them in, or leave out the runs that failed.")
    try:
        return table.cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(
            f"{name} has a column of another type ({str(error).splitlines()[0]}): see docs/studies.md."
        ) from error


def _refuse_unusable_values(table: pa.Table, name: str) -> None:
    values = table["value"].to_numpy()
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise DataError(
            f"{name} has the value {values[row]} for {_words(table, row)}: leave out the runs that failed, "
            "the report lists them as not run."
        )
    fractions = table["fraction"].to_numpy()
    if not ((fractions > 0) & (fractions <= 1)).all():
        row = int(np.argmin((fractions > 0) & (fractions <= 1)))
        raise DataError(f"{name} has the fraction {fractions[row]:g} for {_words(table, row)}: it must be in (0, 1].")


def _refuse_duplicates(table: pa.Table, name: str) -> None:
    keys = [*CELL_COLUMNS, "seed", "case", "metric"]
    counted = table.group_by(keys, use_threads=False).aggregate([("value", "count")])
    twice = counted.filter(pc.greater(counted["value_count"], 1))
    if len(twice):
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise DataError(
            f"{name} has {twice['value_count'][0]} rows for {_words(twice, 0)}{more}: "
            "one run must be there once, so remove what was run again."
        )


def _refuse_two_groups(table: pa.Table, name: str) -> None:
    cases = table.filter(pc.not_equal(table["case"], ""))
    counted = cases.group_by(["task", "case"], use_threads=False).aggregate([("group", "count_distinct")])
    two = counted.filter(pc.greater(counted["group_count_distinct"], 1))
    if len(two):
        raise DataError(
            f"{name} puts the case {two['case'][0]} of {two['task'][0]} into {two['group_count_distinct'][0]} patient "
            "groups: name one."
        )


def _mean_of_each_seed(table: pa.Table, name: str) -> dict[tuple[Cell, str], dict[int, float]]:
    marked = table.append_column("whole", pc.cast(pc.equal(table["case"], ""), pa.int64()))
    grouped = marked.group_by([*CELL_COLUMNS, "metric", "seed"], use_threads=False).aggregate(
        [("value", "mean"), ("whole", "sum"), ("value", "count")]
    )
    seeds: dict[tuple[Cell, str], dict[int, float]] = {}
    for index, row in enumerate(grouped.to_pylist()):
        if row["whole_sum"] and row["value_count"] > 1:
            raise DataError(
                f"{name} has rows with and without a case for {_words(grouped, index)}: give the value of the whole "
                "test set another metric's name."
            )
        cell = Cell(*(row[column] for column in CELL_COLUMNS))
        seeds.setdefault((cell, row["metric"]), {})[row["seed"]] = row["value_mean"]
    return seeds


def _words(table: pa.Table, row: int) -> str:
    """A row's run in words: what differs from the defaults."""
    parts = []
    for column in (*CELL_COLUMNS, "metric", "seed", "case"):
        if column in table.column_names:
            value = table[column][row].as_py()
            if value != _DEFAULTS.get(column, None):
                parts.append(f"{column} {value}")
    return ", ".join(parts)
