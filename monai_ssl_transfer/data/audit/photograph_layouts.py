"""Photographs of a folder with their masks, groups and classes, by the layouts that `data.endoscopy` knows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from monai_ssl_transfer.data.audit.findings import finding, listed
from monai_ssl_transfer.data.audit.items import PART_FOLDERS, PHOTOGRAPH, Inventory, Item
from monai_ssl_transfer.data.endoscopy.polyps import cvc_sequence
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.errors import DataError

_IMAGES = {"images": "masks", "image": "mask", "imgs": "masks", "original": "groundtruth", "volumes": "segmentations"}
_MASK_FOLDERS = frozenset(_IMAGES.values())
_MASK_SUFFIX = re.compile(r"(?:_a|[_-](?:mask|masks|seg|segmentation|label|gt))$", re.IGNORECASE)
_DEPTH = re.compile(r"(?P<number>\d+)_depth\.tiff?", re.IGNORECASE)
_COLOUR = re.compile(r"(?P<number>\d+)_color\.(?:png|tiff?)", re.IGNORECASE)
_SLICE = re.compile(r"^(?P<case>(?:test-)?volume-\d+)_\d+$")
_NO_CLASS = frozenset(
    (*("images", "image", "imgs", "original", "frames", "jpegimages", "png", "tif", "jpg"), *PART_FOLDERS)
)


def photograph_items(inventory: Inventory, files: Sequence[str]) -> str:
    """Add the photographs to the inventory.

    Args:
        inventory: that is filled.
        files: paths of pictures.

    Returns:
        The layout in words; "" where there is no photograph.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        folders[Path(path).parent].append(Path(path))
    if not folders:
        return ""
    names, masks = [], {place for place in folders if _plain(place.name) in _MASK_FOLDERS}
    partner = {place: _masks_beside(place, masks) for place in folders if place not in masks}
    used = {found for found in partner.values() if found is not None}
    sizes: dict[str, int] = {}
    for place in sorted(partner, key=lambda one: natural_key(str(one))):
        kind = _one_folder(inventory, place, folders[place], partner[place], folders)
        sizes[kind] = sizes.get(kind, 0) + len(folders[place])
    for place in sorted(masks - used, key=lambda one: natural_key(str(one))):
        shown = inventory.shown(place)
        telling = f"{shown} holds {len(folders[place])} masks and there is no folder of photographs beside it"
        inventory.findings.append(finding("missing-partner", telling, [shown]))
    names = [kind for kind, _ in sorted(sizes.items())]
    return ", ".join(names)


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "")


def _masks_beside(place: Path, masks: set[Path]) -> Path | None:
    wanted = _IMAGES.get(_plain(place.name))
    return next((one for one in sorted(masks) if one.parent == place.parent and _plain(one.name) == wanted), None)


def _one_folder(
    inventory: Inventory, place: Path, files: list[Path], masks: Path | None, folders: dict[Path, list[Path]]
) -> str:
    if any(_COLOUR.fullmatch(file.name) for file in files) and any(_DEPTH.fullmatch(file.name) for file in files):
        _depth_video(inventory, place, files)
        return "C3VD video"
    cvc = _plain(place.name) == "original"
    if masks is None:
        for file in files:
            _add(inventory, file, "", cvc, finding_of=_class_of(inventory, file))
        return "photographs"
    found = _by_name(inventory, files, lambda stem: stem)
    partners = _by_name(inventory, folders[masks], _mask_key)
    # a normal frame of GIANA needs no mask
    if _plain(place.parent.name) != "normal":
        _report_lone(inventory, {k: v for k, v in found.items() if k not in partners}, f"mask in {masks.name}")
    _report_lone(inventory, {k: v for k, v in partners.items() if k not in found}, f"photograph in {place.name}")
    for name, file in found.items():
        _add(inventory, file, str(partners.get(name, "")), cvc)
    return "CVC-ClinicDB" if cvc else "photographs with masks"


def _mask_key(stem: str) -> str:
    lits = re.fullmatch(r"segmentation-(\d+)_(?:livermask_)?(\d+)", stem)
    return f"volume-{lits[1]}_{lits[2]}" if lits else _MASK_SUFFIX.sub("", stem)


def _by_name(inventory: Inventory, files: Sequence[Path], key: object) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(files, key=lambda one: natural_key(one.name)):
        name = key(file.stem)  # type: ignore[operator]
        if name in found:
            both = [inventory.shown(found[name]), inventory.shown(file)]
            inventory.findings.append(finding("doubled-name", f"{both[0]} and {both[1]} both claim case {name}", both))
            continue
        found[name] = file
    return found


def _report_lone(inventory: Inventory, lone: dict[str, Path], what: str) -> None:
    shown = sorted((inventory.shown(path) for path in lone.values()), key=natural_key)
    if shown:
        have = "has" if len(shown) == 1 else "have"
        inventory.findings.append(finding("missing-partner", f"{listed(shown)} {have} no {what}", shown))


def _add(
    inventory: Inventory, file: Path, label: str, cvc: bool = False, finding_of: str = "", group: str = ""
) -> None:
    shown = inventory.shown(file)
    case = _SLICE.match(file.stem)
    if case is not None:
        group = case["case"]
    elif cvc:
        group = _sequence(file)
    elif re.search("angi?y?odysplasia", str(file.parent.parent.name), re.IGNORECASE):
        return _add_named(inventory, f"angiodysplasia-{file.stem}", file, label, group)
    elif _plain(file.parent.parent.name) == "normal":
        return _add_named(inventory, f"normal-{file.stem}", file, label, group)
    shown_label = inventory.shown(label) if label else ""
    inventory.items.append(
        Item(PHOTOGRAPH, file.stem, shown, str(file), label, group, finding_of, shown_label=shown_label)
    )
    return None


def _add_named(inventory: Inventory, name: str, file: Path, label: str, group: str) -> None:
    shown_label = inventory.shown(label) if label else ""
    inventory.items.append(
        Item(PHOTOGRAPH, name, inventory.shown(file), str(file), label, group, shown_label=shown_label)
    )


def _sequence(file: Path) -> str:
    try:
        return cvc_sequence(file)
    except DataError:
        return ""


def _class_of(inventory: Inventory, file: Path) -> str:
    """The folder of a photograph, where folders below the audited one are classes (ImageFolder, HyperKvasir)."""
    parts = PurePosixPath(inventory.shown(file)).parts[:-1]
    return parts[-1] if parts and _plain(parts[-1]) not in _NO_CLASS else ""


def _depth_video(inventory: Inventory, place: Path, files: list[Path]) -> None:
    """Frames and depth maps of C3VD; the video is the group."""
    colour = {int(m["number"]): file for file in files if (m := _COLOUR.fullmatch(file.name))}
    depth = {int(m["number"]): file for file in files if (m := _DEPTH.fullmatch(file.name))}
    _report_lone(inventory, {str(n): colour[n] for n in colour if n not in depth}, "depth map")
    _report_lone(inventory, {str(n): depth[n] for n in depth if n not in colour}, "colour frame")
    video = next((p.removesuffix("_under_review") for p in place.parts if p.endswith("_under_review")), place.name)
    for number, file in sorted(colour.items()):
        inventory.items.append(Item(PHOTOGRAPH, f"{video}-{number:04d}", inventory.shown(file), str(file), group=video))
