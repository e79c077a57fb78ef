"""The audit of a data set: list it, read everything once, and run every check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from monai_ssl_transfer.data.audit.check_embeddings import similar_images
from monai_ssl_transfer.data.audit.check_files import damaged_files
from monai_ssl_transfer.data.audit.check_geometry import orientations, scan_geometry
from monai_ssl_transfer.data.audit.check_grids import label_grids
from monai_ssl_transfer.data.audit.check_groups import groups_across_parts
from monai_ssl_transfer.data.audit.check_masks import mask_values
from monai_ssl_transfer.data.audit.check_pictures import near_duplicates, same_photographs
from monai_ssl_transfer.data.audit.check_scans import same_scans
from monai_ssl_transfer.data.audit.check_values import blank_photographs, hu_range
from monai_ssl_transfer.data.audit.facts import Facts
from monai_ssl_transfer.data.audit.findings import Finding, in_order_of_weight
from monai_ssl_transfer.data.audit.inventory import take_inventory
from monai_ssl_transfer.data.audit.items import PHOTOGRAPH, STORED_PHOTOGRAPH, STORED_SCAN, Inventory, Item
from monai_ssl_transfer.data.audit.known_sets import known_overlaps
from monai_ssl_transfer.data.audit.photograph_facts import look_at_photograph, look_at_stored_photographs
from monai_ssl_transfer.data.audit.records import Record
from monai_ssl_transfer.data.audit.report import AuditReport
from monai_ssl_transfer.data.audit.scan_facts import look_at_scan, look_at_stored_scan
from monai_ssl_transfer.data.audit.split_file import assign_parts, read_split
from monai_ssl_transfer.data.worker_pool import in_order, worker_pool

Check = Callable[[Sequence[Record]], Iterator[Finding]]
CHECK_FUNCTIONS: tuple[Check, ...] = (
    groups_across_parts,
    same_photographs,
    same_scans,
    near_duplicates,
    known_overlaps,
    damaged_files,
    mask_values,
    label_grids,
    hu_range,
    blank_photographs,
    scan_geometry,
    orientations,
)
_PHOTOGRAPHS_AT_A_TIME = 16


def audit_data(
    data: str | Path,
    *,
    split: str | Path | None = None,
    against: str | Path | None = None,
    group_pattern: str = "",
    workers: int = 1,
    exclude: Sequence[Path] = (),
    embed: Callable[[Sequence[Record]], object] | None = None,
    progress: bool = True,
) -> AuditReport:
    """Look for leakage and damage in a data set.

    Args:
        data: folder in any layout, single file, or slice store.
        split: file that names the cases of every part; None takes folders called train, val and test, if there are any.
        against: another data set that must share nothing with this one; its own faults are not reported.
        group_pattern: regular expression whose first (...) in a file's path names the patient.
        workers: processes that read; 1 reads in this process.
        exclude: folders that are not looked into.
        embed: gives (N, D) embeddings of records; None leaves that comparison out.
        progress: whether to show a bar.

    Returns:
        The findings in a fixed order, the same for any number of workers.

    Raises:
        DataError: nothing can be audited, or the split cannot be read.
    """
    named = read_split(split) if split is not None else None
    with worker_pool(workers, remedy="run the same command again with fewer --workers") as pool:
        inventory = take_inventory(data, pool, exclude, group_pattern)
        findings = list(inventory.findings)
        if named is not None:
            parts, disagreements = assign_parts(inventory.items, named)
            findings += disagreements
            inventory.items = inventory.with_parts(parts)
        records = _read(inventory.items, pool, workers, False, progress)
        other = take_inventory(against, pool, exclude, group_pattern) if against is not None else None
        if other is not None:
            other.items = [replace(item, shown=f"OTHER:{item.shown}") for item in other.items]
            records += _read(other.items, pool, workers, True, progress)
    for check in CHECK_FUNCTIONS:
        findings += check(records)
    if embed is not None:
        findings += similar_images(records, embed)
    return AuditReport(_facts(inventory, other, records), in_order_of_weight(findings))


def _read(
    items: Sequence[Item], pool: ProcessPoolExecutor | None, workers: int, other: bool, progress: bool
) -> list[Record]:
    """Records in the order of the items."""
    records = []
    with tqdm(total=len(items), desc="reading the other set" if other else "reading", disable=not progress) as bar:
        for chunk, found in _looks(items, pool, workers):
            bar.update(len(chunk))
            records += [Record(chunk[number], facts, other) for number, facts in found]
    return records


def _looks(
    items: Sequence[Item], pool: ProcessPoolExecutor | None, workers: int
) -> Iterator[tuple[list[Item], list[tuple[int, Facts]]]]:
    chunks: list[list[Item]] = []
    for item in items:
        small = item.kind == PHOTOGRAPH
        if small and chunks and chunks[-1][0].kind == PHOTOGRAPH and len(chunks[-1]) < _PHOTOGRAPHS_AT_A_TIME:
            chunks[-1].append(item)
        else:
            chunks.append([item])
    yield from zip(chunks, in_order(pool, look_at, ((chunk,) for chunk in chunks), workers + 2), strict=True)


def look_at(items: Sequence[Item]) -> list[tuple[int, Facts]]:
    """Read some items; a stored series of photographs gives one fact per frame.

    Args:
        items: what to read.

    Returns:
        Number of the item, and facts.
    """
    found: list[tuple[int, Facts]] = []
    for number, item in enumerate(items):
        if item.kind == STORED_PHOTOGRAPH:
            found += [(number, facts) for facts in look_at_stored_photographs(item)]
        elif item.kind == PHOTOGRAPH:
            found.append((number, look_at_photograph(item)))
        else:
            found.append((number, look_at_stored_scan(item) if item.kind == STORED_SCAN else look_at_scan(item)))
    return found


def _facts(inventory: Inventory, other: Inventory | None, records: Sequence[Record]) -> dict[str, object]:
    """What the report says of the data."""
    own = [one for one in records if not one.other]
    parts: dict[str, int] = {}
    for one in own:
        if one.item.part:
            parts[one.item.part] = parts.get(one.item.part, 0) + 1
    return {
        "data": inventory.root.name,
        "layout": inventory.layout,
        "images": len([one for one in own if one.item.image]),
        "labels": len([one for one in own if one.facts.label is not None]),
        "groups": len({one.item.group for one in own if one.item.group}),
        "parts": dict(sorted(parts.items())),
        "against": None if other is None else other.root.name,
        "against_layout": None if other is None else other.layout,
        "against_images": None if other is None else len(records) - len(own),
    }
