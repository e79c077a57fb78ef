"""Which training cases a probe may see: fractions and n per class, drawn by group, the same for every encoder.

Everything follows from the names of groups and cases and the seed, never from the order in which they are listed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict

from monai_ssl_transfer.data.stratified_draw import Groups, nested_order, prefix
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors

NO_FINDING = "no finding"
IMAGES = ("one", "all")


def draw_fraction(data: LabelledVectors, fraction: float, seed: int) -> LabelledVectors:
    """Keep a share of the groups, stratified; a smaller share lies within a larger one of the same seed.

    Args:
        data: training cases.
        fraction: share of the groups in (0, 1].
        seed: source of the draw.

    Returns:
        The cases of the drawn groups, in their order in ``data``.

    Raises:
        DataError: the share is out of range, or too small for one group of every class, or a class has no case.
    """
    if fraction == 1:
        return data
    rows, owners, strata = _rows_by_class(data)
    _check_all_there(data, set(strata))
    groups = Groups.collect(owners, strata)
    order = nested_order(groups, groups.shuffled(seed))
    return data.subset(sorted({rows[number] for number in groups.indices(prefix(groups, order, fraction))}))


def draw_per_class(
    data: LabelledVectors, count: int, seed: int, images: str = "one", grouped: bool = True
) -> LabelledVectors:
    """Draw ``count`` groups (patients) of every class; fewer of the same seed lie within more.

    A patient who has cases of two classes may be drawn for both, and gives each its own cases. Where a case may
    have several findings, it counts for each of them, and patients without any finding are drawn as one more class
    where there are such cases.

    Args:
        data: training cases.
        count: groups per class.
        seed: source of the draw.
        images: "one" case of each drawn group, so that a shot is a labelled image, or "all" its cases of the class.
        grouped: False: every case counts as a group of its own.

    Returns:
        The drawn cases, in their order in ``data``.

    Raises:
        DataError: a class has fewer groups than are taken.
    """
    if count < 1 or images not in IMAGES:
        raise DataError(f"{count} patients per class with {images!r} of their images: give 1 or more, and one or all.")
    owners: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, group, stratum in zip(*_rows_by_class(data), strict=True):
        owners[stratum][group if grouped else data.cases[row]].append(row)
    _check_all_there(data, set(owners))
    drawn: set[int] = set()
    for stratum, members in owners.items():
        if len(members) < count:
            raise DataError(
                f"Class {stratum} has {len(members)} patients to train on, fewer than the {count} that are drawn: add "
                "cases or draw fewer per class."
            )
        for group in sorted(members, key=lambda name: _lot(seed, stratum, name))[:count]:
            rows = sorted(members[group], key=lambda row: _lot(seed, stratum, data.cases[row]))
            drawn.update(rows[:1] if images == "one" else rows)
    return data.subset(sorted(drawn))


def _rows_by_class(data: LabelledVectors) -> tuple[list[int], list[str], list[str]]:
    """Row, group and class of every case, with one entry per finding where a case has several."""
    if not data.multilabel:
        names = [data.class_names[target] for target in data.targets.tolist()]
        return list(range(len(data))), list(data.groups), names
    found = [[data.class_names[one] for one, value in enumerate(row) if value] for row in data.targets.tolist()]
    pairs = [(row, name) for row, names in enumerate(found) for name in names or [NO_FINDING]]
    return [row for row, _ in pairs], [data.groups[row] for row, _ in pairs], [name for _, name in pairs]


def _check_all_there(data: LabelledVectors, present: set[str]) -> None:
    missing = [name for name in data.class_names if name not in present]
    if missing:
        raise DataError(f"No training case has class {', '.join(missing)}: add cases, or take the class off the list.")


def _lot(seed: int, stratum: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{stratum}/{name}".encode()).digest()
