"""Bring runs from elsewhere into a study's folder: a tidy table, or the published runs of RadNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.study.declaration import (
    DECLARATION_NAME,
    Comparison,
    Declaration,
    DeclaredCell,
    Family,
    Metric,
    write_declaration,
)
from monai_ssl_transfer.study.published.radnet import read_radnet
from monai_ssl_transfer.study.results import RESULTS_NAME, Results, read_results, write_results


@dataclass(frozen=True)
class ImportOptions:
    """How a tidy table is to be read; the published runs bring their own declaration.

    Args:
        reference: initialisation that all others are compared with.
        title: of the report.
        smaller_is_better: metrics of which small values are good.
        margins: metric -> largest difference that does not matter, stated before the runs.
        primary: metrics that are tested, the others are only shown; empty: all are tested.
        overwrite: replace an earlier import.
    """

    reference: str = ""
    title: str = ""
    smaller_is_better: Sequence[str] = ()
    margins: Mapping[str, float] = field(default_factory=dict)
    primary: Sequence[str] = ()
    overwrite: bool = False


def import_study(file: Path, out: Path, options: ImportOptions | None = None) -> tuple[Results, Declaration]:
    """Write results.parquet and study.json of a study.

    Args:
        file: ``.json`` of the RadNet runs, or a tidy ``.csv`` or ``.parquet``.
        out: folder of the study.
        options: of a tidy table.

    Raises:
        DataError: the file is damaged or foreign, an option names what is not in it, or the folder holds a study.
    """
    options = options or ImportOptions()
    if (out / DECLARATION_NAME).exists() and not options.overwrite:
        raise DataError(f"{out} already holds a study: give another folder, or --overwrite to replace it.")
    if file.suffix.lower() == ".json":
        _refuse_options(file, options)
        results, declaration = read_radnet(file)
    else:
        results = read_results(file)
        declaration = declare(results, file, options)
    write_results(results, out / RESULTS_NAME)
    write_declaration(declaration, out / DECLARATION_NAME)
    return results, declaration


def _refuse_options(file: Path, options: ImportOptions) -> None:
    given = replace(options, overwrite=False)
    unused = [one.name for one in fields(given) if getattr(given, one.name)]
    if unused:
        option = {"margins": "margin"}.get(unused[0], unused[0].replace("_", "-"))
        raise DataError(f"{file} brings the declaration of its study, so --{option} has no effect: leave it out.")


def declare(results: Results, file: Path, options: ImportOptions) -> Declaration:
    """Declare all of a tidy table: every other initialisation against the reference, in one family.

    The seeds of a task, protocol and fraction are those that any initialisation has there, so that a seed that only
    some have is listed as not run.

    Raises:
        DataError: the reference, or a metric of the options, is not in the table.
    """
    cells = results.cells()
    initialisations = list(dict.fromkeys(cell.initialisation for cell in cells))
    if options.reference not in initialisations:
        told = f"it has no initialisation {options.reference}" if options.reference else "no reference was named"
        raise DataError(
            f"{file} cannot be compared, because {told}: give --reference, one of {', '.join(initialisations)}."
        )
    names = list(dict.fromkeys(metric for cell in cells for metric in results.metrics(cell)))
    unknown = sorted({*options.smaller_is_better, *options.margins, *options.primary} - set(names))
    if unknown:
        raise DataError(f"{file} has no metric {unknown[0]}: it has {', '.join(names)}.")
    metrics = tuple(
        Metric(
            name,
            digits=_digits(results, name),
            larger_is_better=name not in options.smaller_is_better,
            margin=options.margins.get(name),
        )
        for name in names
    )
    declared = tuple(_declared(results, options.reference))
    comparisons = tuple(
        Comparison(one.cell, replace(one.cell, initialisation=options.reference), metric)
        for one in declared
        if one.cell.initialisation != options.reference
        for metric in one.metrics
    )
    primary = options.primary or names
    tested = tuple(one for one in comparisons if one.metric in primary)
    shown = tuple(one for one in comparisons if one.metric not in primary)
    which = f"{', '.join(options.primary)}" if options.primary else "every metric of the table"
    about = f"every other initialisation against {options.reference} in {which}"
    title = options.title or file.stem
    counted = "metric" if not options.primary else f"value of {', '.join(options.primary)}"
    notes = (f"Declared when the table was imported: every initialisation, task and {counted} in it counts.",)
    return Declaration(title, file.name, metrics, declared, (Family("all", about, tested),), shown, notes=notes)


def _digits(results: Results, metric: str) -> int:
    """Four digits for a metric between -1 and 1, else two."""
    values = (value for cell in results.cells() for value in results.per_seed(cell, metric).values())
    return 4 if max(map(abs, values)) <= 1 else 2


def _declared(results: Results, reference: str) -> list[DeclaredCell]:
    """Every setting of the table with every initialisation that has it, and the reference."""
    settings: dict[tuple[str, str, str, float], dict[str, list[str]]] = {}
    seeds: dict[tuple[str, str, str, float], set[int]] = {}
    for cell in results.cells():
        key = cell.study, cell.task, cell.protocol, cell.fraction
        settings.setdefault(key, {}).setdefault(cell.initialisation, [])
        for metric in results.metrics(cell):
            seeds.setdefault(key, set()).update(results.per_seed(cell, metric))
    declared = []
    for cell in sorted(results.cells(), key=lambda one: one.initialisation != reference):
        key = cell.study, cell.task, cell.protocol, cell.fraction
        present = [one for one in results.cells() if (one.study, one.task, one.protocol, one.fraction) == key]
        metrics = tuple(dict.fromkeys(metric for one in present for metric in results.metrics(one)))
        declared.append(DeclaredCell(cell, metrics, tuple(sorted(seeds[key]))))
        if not any(one.initialisation == reference for one in present):
            missing = DeclaredCell(replace(cell, initialisation=reference), metrics, tuple(sorted(seeds[key])))
            if missing not in declared:
                declared.append(missing)
    return declared
