"""What a folder holds: a slice store, volumes, DICOM series and photographs, with what their layout says about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from monai_ssl_transfer.data.audit.catalogue import refusal_check
from monai_ssl_transfer.data.audit.findings import finding, listed
from monai_ssl_transfer.data.audit.items import PART_FOLDERS, SCAN, STORED_PHOTOGRAPH, STORED_SCAN, Inventory, Item
from monai_ssl_transfer.data.audit.photograph_layouts import photograph_items
from monai_ssl_transfer.data.audit.volume_layouts import volume_items
from monai_ssl_transfer.data.ct.dicom_series import group_slices
from monai_ssl_transfer.data.ct.ingest_worker import scan_files
from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES
from monai_ssl_transfer.data.file_listing import SYSTEM_FILES, list_files
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.data.redaction import private_folder
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.data.store_format import HEADER_FILE
from monai_ssl_transfer.data.worker_pool import in_order
from monai_ssl_transfer.errors import DataError

_FILES_PER_SCAN = 32


def take_inventory(
    root: str | Path, pool: ProcessPoolExecutor | None = None, exclude: Sequence[Path] = (), group_pattern: str = ""
) -> Inventory:
    """List what a folder, a single file or a slice store holds.

    Args:
        root: what the user gave.
        pool: processes that look at DICOM headers.
        exclude: folders that are not looked into.
        group_pattern: regular expression whose first (...) in a path names the patient; "" for the layout's own groups.

    Raises:
        DataError: there is nothing at ``root``, or nothing that can be audited, or the pattern is none.
    """
    root = Path(root).absolute()
    if not root.exists():
        raise DataError(f"{root} does not exist: give the folder of a data set or a slice store.")
    if (root / HEADER_FILE).is_file():
        return _store(root)
    paths, problems = list_files(root, exclude=[*exclude, private_folder(root)])
    inventory = Inventory(root if root.is_dir() else root.parent, "")
    for problem in problems:
        shown = inventory.shown(problem.path)
        inventory.findings.append(finding("damaged", f"{shown}: {problem.sentence}", [shown]))
    paths = _without_system_files(inventory, paths)
    volumes = [path for path in paths if path.lower().endswith((".nii", ".nii.gz"))]
    photographs = [path for path in paths if path.lower().endswith(FRAME_SUFFIXES)]
    known = {*volumes, *photographs}
    others = [path for path in paths if path not in known]
    layouts = [volume_items(inventory, volumes), photograph_items(inventory, photographs)]
    layouts.append(_dicom_items(inventory, others, pool, quiet=bool(volumes or photographs)))
    inventory.layout = ", ".join(layout for layout in layouts if layout)
    if not inventory.items:
        raise DataError(f"{root} holds no scan, photograph or slice store: give the folder of a data set.")
    inventory.items = _grouped([_with_part_of_folder(item) for item in inventory.items], group_pattern)
    inventory.items.sort(key=lambda item: (natural_key(item.shown), item.name))
    return inventory


def _store(root: Path) -> Inventory:
    store = SliceStore(root)
    inventory = Inventory(root, f"slice store of {len(store)} {'photographs' if store.pixels == 'rgb' else 'slices'}")
    kind = STORED_PHOTOGRAPH if store.pixels == "rgb" else STORED_SCAN
    for number in range(store.series_count):
        entry = store.series(number)
        name = f"series {number}"
        inventory.items.append(Item(kind, name, name, str(root), group=entry.patient_key, series=number))
    if not inventory.items:
        raise DataError(f"{root} is an empty slice store: ingest something into it first.")
    return inventory


def _without_system_files(inventory: Inventory, paths: list[str]) -> list[str]:
    left = [p for p in paths if Path(p).name.lower() in SYSTEM_FILES or Path(p).name.startswith("._")]
    if left:
        shown = sorted(map(inventory.shown, left), key=natural_key)
        telling = f"{len(left)} files that an operating system left behind: {listed(shown)}"
        inventory.findings.append(finding("system-file", telling, shown))
    hidden = set(left)
    return [path for path in paths if path not in hidden and not Path(path).name.startswith(".")]


def _dicom_items(inventory: Inventory, paths: list[str], pool: ProcessPoolExecutor | None, quiet: bool) -> str:
    """Add a series per item; ``quiet`` passes over files that are neither, as beside NIfTI and photographs."""
    chunks = [(paths[first : first + _FILES_PER_SCAN],) for first in range(0, len(paths), _FILES_PER_SCAN)]
    scans = [scan for found in in_order(pool, scan_files, chunks, 8) for scan in found]
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for scan in scans:
        if scan.refusal is None or (scan.ignored and quiet):
            continue
        kind = refusal_check(scan.refusal.code)
        reasons.setdefault((kind, scan.refusal.code, scan.refusal.sentence), []).append(inventory.shown(scan.path))
    for (kind, _, sentence), files in reasons.items():
        files.sort(key=natural_key)
        inventory.findings.append(finding(kind, f"{listed(files)}: {sentence}", files))
    groups = group_slices(header for scan in scans for header in scan.headers)
    for group in groups:
        first = min((files[0].path for files in group.slices), key=natural_key)
        folder = PurePosixPath(inventory.shown(first)).parent.as_posix()
        shown = inventory.shown(first) if len(group.slices) == 1 else f"{folder}/ ({len(group.slices)} slices)"
        patient = group.slices[0][0].patient
        inventory.items.append(
            Item(SCAN, inventory.shown(first), shown, first, group=f"DICOM patient {patient}", slices=group)
        )
    _number_same_folders(inventory)
    return f"{len(groups)} DICOM series" if groups else ""


def _number_same_folders(inventory: Inventory) -> None:
    seen: dict[str, int] = {}
    for place, item in enumerate(inventory.items):
        seen[item.shown] = seen.get(item.shown, 0) + 1
        if item.slices is not None and seen[item.shown] > 1:
            inventory.items[place] = replace(item, shown=f"{item.shown} #{seen[item.shown]}")


def _with_part_of_folder(item: Item) -> Item:
    """Folders called train, val and test (or imagesTr and imagesTs) are a split."""
    parts = [
        PART_FOLDERS[part.lower()] for part in PurePosixPath(item.shown).parts[:-1] if part.lower() in PART_FOLDERS
    ]
    if not parts and item.part:
        return item
    return replace(item, part=parts[0]) if parts else item


def _grouped(items: list[Item], pattern: str) -> list[Item]:
    if not pattern:
        return items
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--group-pattern {pattern!r} is no regular expression ({error}): correct it.") from error
    if not wanted.groups:
        raise DataError(f"--group-pattern {pattern!r} has no (...): put the part that names the patient into brackets.")
    found = [wanted.search(item.shown) for item in items]
    return [
        item if match is None else replace(item, group=match[1] or "") for item, match in zip(items, found, strict=True)
    ]
