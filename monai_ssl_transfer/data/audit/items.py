"""What an audit looks at: scans, photographs and stored series, each with its label, group, class and part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from monai_ssl_transfer.data.audit.findings import Finding, Picture
from monai_ssl_transfer.data.ct.dicom_series import SliceGroup

PART_FOLDERS = {
    "train": "train",
    "training": "train",
    "imagestr": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "imagesval": "validation",
    "test": "test",
    "testing": "test",
    "imagests": "test",
}
"""Folders, in lower case, that are the parts of a split."""
SCAN, PHOTOGRAPH, STORED_SCAN, STORED_PHOTOGRAPH = "scan", "photograph", "stored scan", "stored photograph"


@dataclass(frozen=True)
class Item:
    """One scan or photograph.

    Args:
        kind: `SCAN`, `PHOTOGRAPH`, `STORED_SCAN` or `STORED_PHOTOGRAPH`.
        name: as a split calls it.
        shown: path below the audited folder, for people; of an item of the other data set with "OTHER:" before it.
        image: path of the file, the first file of a DICOM series, or the store; "" for a label without image.
        label: path of the mask; "".
        group: patient, sequence or video; "" where none is known.
        finding: class, where folders are classes; "".
        part: of the split; "" where there is none.
        allowed: labels that the task knows; None for any.
        slices: of a DICOM series.
        series: number in a slice store.
        shown_label: path of the mask for people.
    """

    kind: str
    name: str
    shown: str
    image: str
    label: str = ""
    group: str = ""
    finding: str = ""
    part: str = ""
    allowed: tuple[int, ...] | None = None
    slices: SliceGroup | None = None
    series: int = -1
    shown_label: str = ""

    @property
    def stands_in(self) -> tuple[str, ...]:
        """Names by which a split may mean it."""
        path = Path(self.shown)
        return tuple(dict.fromkeys((self.name, self.shown, path.name, path.name.split(".nii")[0], path.stem)))

    def picture(self, row: int = -1) -> Picture:
        """What a page shows of it."""
        files = tuple(files[0].path for files in self.slices.slices) if self.slices is not None else ()
        return Picture(self.shown, self.image or self.label, self.label, files, self.series, row)


@dataclass
class Inventory:
    """What a folder holds.

    Args:
        root: the folder.
        layout: what it was recognised as, in words.
        items: in natural order.
        findings: about files that are no item, or lack their partner.
    """

    root: Path
    layout: str
    items: list[Item] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def shown(self, path: str | Path) -> str:
        """A path below the folder."""
        path = Path(path)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def with_parts(self, parts: Sequence[str]) -> list[Item]:
        """The items with their parts of the split."""
        return [replace(item, part=part) for item, part in zip(self.items, parts, strict=True)]
