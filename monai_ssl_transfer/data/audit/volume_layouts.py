"""NIfTI files of a folder as pairs of image and label: LiTS, MSD (dataset.json), nnU-Net, or by their names."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib

from monai_ssl_transfer.data.audit.findings import finding
from monai_ssl_transfer.data.audit.items import SCAN, Inventory, Item
from monai_ssl_transfer.data.natural_order import natural_key

LITS_LABELS = (0, 1, 2)
_LITS = re.compile(r"^(?P<kind>test-volume|volume|segmentation)-(?P<case>\d+)$")
_LABEL_WORDS = re.compile(
    r"(?<![a-z])(?:segmentations?|segm?|labels?|masks?|gt|roi|labelstr|labelsts|masks)(?![a-z])", re.IGNORECASE
)
_IMAGE_WORDS = re.compile(r"(?<![a-z])(?:images?|img|ct|scan|volume)(?![a-z])", re.IGNORECASE)


def volume_items(inventory: Inventory, files: Sequence[str]) -> str:
    """Add the volumes to the inventory.

    Args:
        inventory: that is filled.
        files: paths of NIfTI files.

    Returns:
        The layout in words; "" where there is no volume.
    """
    if not files:
        return ""
    left, names = set(files), []
    for described in sorted({parent / "dataset.json" for parent in _parents(inventory, files)}):
        if described.is_file() and (used := _described(inventory, described, left)):
            left -= used
            names.append("MSD (dataset.json)")
    lits = [path for path in sorted(left, key=natural_key) if _LITS.match(stem(path))]
    if any(stem(path).startswith("segmentation") for path in lits):
        _lits(inventory, lits)
        left -= set(lits)
        names.append("LiTS")
    if left:
        _by_name(inventory, sorted(left, key=natural_key))
        names.append("NIfTI files")
    return ", ".join(dict.fromkeys(names))


def stem(path: str | Path) -> str:
    """Name of a NIfTI file without its suffixes."""
    return re.sub(r"\.nii(\.gz)?$", "", Path(path).name, flags=re.IGNORECASE)


def _parents(inventory: Inventory, files: Sequence[str]) -> set[Path]:
    folders = {inventory.root}
    for path in files:
        folders |= {p for p in list(Path(path).parents)[:2] if p.is_relative_to(inventory.root)}
    return folders


def _add(inventory: Inventory, name: str, image: str, label: str, allowed: Any = None, part: str = "") -> None:
    shown, shown_label = inventory.shown(image or label), inventory.shown(label) if label else ""
    inventory.items.append(Item(SCAN, name, shown, image, label, part=part, allowed=allowed, shown_label=shown_label))


def _missing(inventory: Inventory, path: str, what: str) -> None:
    shown = inventory.shown(path)
    inventory.findings.append(finding("missing-partner", f"{shown} has no {what}", [shown]))


def _lits(inventory: Inventory, files: Sequence[str]) -> None:
    kinds: dict[str, dict[int, str]] = {"volume": {}, "segmentation": {}, "test-volume": {}}
    for path in files:
        match = _LITS.match(stem(path))
        if match is None:
            continue
        taken, case = kinds[match["kind"]], int(match["case"])
        if case in taken:
            both = [inventory.shown(taken[case]), inventory.shown(path)]
            inventory.findings.append(finding("doubled-name", f"{both[0]} and {both[1]} both claim case {case}", both))
            _add(inventory, f"{case} ({inventory.shown(path)})", path, "")
            continue
        taken[case] = path
    for case in sorted({*kinds["volume"], *kinds["segmentation"]}):
        image, label = kinds["volume"].get(case, ""), kinds["segmentation"].get(case, "")
        if not image:
            _missing(inventory, label, f"volume-{case}.nii[.gz]")
        if not label:
            _missing(inventory, image, f"segmentation-{case}.nii[.gz]")
        _add(inventory, str(case), image, label, LITS_LABELS)
    for case, path in sorted(kinds["test-volume"].items()):
        _add(inventory, f"test-{case}", path, "", part="test")


def _described(inventory: Inventory, described: Path, files: set[str]) -> set[str]:
    """Take what an MSD ``dataset.json`` lists; nothing where it lists nothing, as nnU-Net's."""
    shown = inventory.shown(described)
    try:
        content = json.loads(described.read_text(encoding="utf-8"))
        training, test = list(content.get("training", [])), list(content.get("test", []))
        labels = content.get("labels", {})
        numbers = [int(v) for v in (labels.values() if _names_first(labels) else labels)] if labels else []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        telling = f"{shown} is not the description of an MSD data set ({type(error).__name__})"
        inventory.findings.append(finding("damaged", telling, [shown]))
        return set()
    allowed, used = tuple(numbers) or None, set()
    entries = [(entry, "train") for entry in training] + [(entry, "test") for entry in test]
    seen: dict[str, str] = {}
    for entry, part in entries:
        pair = entry if isinstance(entry, dict) else {"image": entry}
        found = {}
        for key in ("image", "label"):
            if key not in pair:
                continue
            path = _existing(described, str(pair[key]))
            if path is None:
                named = str(pair[key])
                telling = f"{shown} lists {named}, which is not there"
                inventory.findings.append(finding("missing-partner", telling, [named]))
            found[key] = path or ""
        if part == "train" and "label" not in pair and found.get("image"):
            _missing(inventory, found["image"], f"label in {shown}")
        used |= {path for path in found.values() if path}
        if not any(found.values()):
            continue
        name = _case_name(found.get("image") or found["label"])
        if name in seen:
            telling = f"{shown} lists case {name} as {seen[name]} and as {part}"
            inventory.findings.append(finding("doubled-name", telling, [shown]))
        seen[name] = part
        _add(inventory, name, found.get("image", ""), found.get("label", ""), allowed, part)
    _unlisted(inventory, described, files - used, bool(entries))
    return used


def _names_first(labels: Any) -> bool:
    """Whether a mapping of labels is name to number (nnU-Net v2) and not number to name (MSD)."""
    return not all(str(key).isdigit() for key in labels)


def _case_name(path: str) -> str:
    number = re.fullmatch(r"liver_(\d+)", stem(path))
    return str(int(number[1])) if number else stem(path)


def _existing(described: Path, name: str) -> str | None:
    path = described.parent / name
    for candidate in (path, Path(f"{path}.gz"), path.with_suffix("") if path.suffix == ".gz" else path):
        if candidate.is_file():
            return str(candidate)
    return None


def _unlisted(inventory: Inventory, described: Path, left: set[str], lists: bool) -> None:
    folders = {described.parent / name for name in ("imagesTr", "labelsTr", "imagesTs")}
    over = sorted((inventory.shown(p) for p in left if Path(p).parent in folders), key=natural_key) if lists else []
    if over:
        telling = f"{inventory.shown(described)} does not list {over[0]} ({len(over)} such files)"
        inventory.findings.append(finding("not-used", telling, over))


def is_label_name(path: str) -> bool:
    """Whether a file is a label by its own name or its folder's."""
    name = Path(path)
    return bool(_LABEL_WORDS.search(re.sub(r"[\d_.\-]+", " ", f"{name.parent.name} {stem(path)}")))


def _by_name(inventory: Inventory, files: Sequence[str]) -> None:
    """Pair a label with the image whose name is the same but for words such as "seg" and "image"."""
    images: dict[str, list[str]] = defaultdict(list)
    labels: dict[str, list[str]] = defaultdict(list)
    for path in files:
        name = re.sub(r"_0000$", "", stem(path))
        plain = re.sub(r"[\s_.\-]+", " ", name)
        is_label = is_label_name(path)
        plain = (_LABEL_WORDS if is_label else _IMAGE_WORDS).sub("", plain)
        (labels if is_label else images)[" ".join(plain.split())].append(path)
    for key in sorted({*images, *labels}, key=natural_key):
        if len(images[key]) == 1 and len(labels[key]) == 1 and _fit(images[key][0], labels[key][0]):
            _add(inventory, _case_name(images[key][0]), images[key][0], labels[key][0])
            continue
        for path in images[key]:
            _add(inventory, _case_name(path), path, "")
        for path in labels[key]:
            _add(inventory, _case_name(path), "", path)
    if labels and images:
        _report_lone(inventory, images, labels)


def _fit(image: str, label: str) -> bool:
    """Whether files of like names are a pair: two folders or one name within the other say so, else their sizes."""
    if Path(image).parent != Path(label).parent or stem(label).startswith(stem(image)):
        return True
    try:
        return bool(nib.load(image).shape[:3] == nib.load(label).shape[:3])  # type: ignore[attr-defined]
    except (OSError, ValueError, nib.filebasedimages.ImageFileError):
        return False


def _report_lone(inventory: Inventory, images: dict[str, list[str]], labels: dict[str, list[str]]) -> None:
    """In folders of the kind imagesTr and labelsTr every label has its image; of other folders nothing is known."""
    for key, found in labels.items():
        for path in found:
            if Path(path).parent.name.lower().startswith("labels") and not images.get(key):
                _missing(inventory, path, "image of its name")
    paired = {Path(path).parent for found in labels.values() for path in found}
    for key, found in images.items():
        for path in found:
            folder = Path(path).parent
            beside = folder.with_name(re.sub("^images", "labels", folder.name))
            if folder.name.lower() == "imagestr" and beside in paired and not labels.get(key):
                _missing(inventory, path, "label of its name")
