"""Slices to series: grouped by geometry, ordered along the normal, one slice per position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.data.ct.dicom_header import ACQUISITION_KEYS, SliceHeader

SAME_POSITION_MM = 0.01


@dataclass(frozen=True)
class SliceGroup:
    """Slices of one DICOM series that share orientation, size and pixel spacing.

    Args:
        name: clear text that is unique for the group and the same in every run (holds the series UID: never write it
            into a store).
        slices: for each slice the files that hold it (copies, or the same instance in several transfer syntaxes),
            preferred one first; ordered by position from inferior to superior.
    """

    name: str
    slices: tuple[tuple[SliceHeader, ...], ...]

    def positions(self) -> np.ndarray:
        """(slices,) float64, mm along the normal of the first slice."""
        return positions_along_normal([files[0] for files in self.slices])

    def clashes(self) -> list[list[int]]:
        """Runs of slices (their numbers) that lie at the same position."""
        return same_positions(self.positions())


def positions_along_normal(headers: Sequence[SliceHeader]) -> np.ndarray:
    """(slices,) float64: each slice's true position in mm along the upward normal of the first."""
    normal = headers[0].plane.canonical()[0].normal
    return np.array([float(np.asarray(header.origin) @ normal) for header in headers])


def same_positions(positions: np.ndarray) -> list[list[int]]:
    """Runs of two or more numbers of an ascending list that are equal within 0.01 mm."""
    runs: list[list[int]] = []
    for number in range(1, len(positions)):
        if positions[number] - positions[number - 1] < SAME_POSITION_MM:
            if runs and runs[-1][-1] == number - 1:
                runs[-1].append(number)
            else:
                runs.append([number - 1, number])
    return runs


def group_slices(headers: Iterable[SliceHeader]) -> list[SliceGroup]:
    """Group slices by series and geometry; copies of one SOP instance become one slice.

    The order within a group is the position along the normal, never the file name or InstanceNumber.
    """
    groups: dict[str, dict[str, list[SliceHeader]]] = defaultdict(lambda: defaultdict(list))
    for header in headers:
        groups[_group_name(header)][header.sop_uid].append(header)
    return [_ordered(name, instances) for name, instances in sorted(groups.items())]


def _group_name(header: SliceHeader) -> str:
    # + 0.0 turns -0.0 into 0.0; two digits of a direction are half a degree, what rounding by scanners can explain
    directions = [round(value, 2) + 0.0 for value in (*header.column_direction, *header.row_direction)]
    spacing = [round(value, 4) for value in header.spacing]
    return f"{header.series_uid}|{directions}|{spacing}|{header.rows}x{header.columns}"


def _ordered(name: str, instances: dict[str, list[SliceHeader]]) -> SliceGroup:
    # native before compressed: cheaper to read, and a reader that lacks a codec still has it
    slices = [
        tuple(sorted(files, key=lambda h: (h.pixel_offset < 0, len(h.transfer_syntax), h.path)))
        for files in instances.values()
    ]
    slices.sort(key=lambda files: files[0].sop_uid)
    positions = positions_along_normal([files[0] for files in slices])
    return SliceGroup(name, tuple(slices[number] for number in np.argsort(positions, kind="stable")))


def split_by_acquisition(group: SliceGroup) -> list[SliceGroup] | None:
    """Tell slices at one position apart by what the header says about time, phase, acquisition, kernel or image type.

    Returns:
        Groups in which every position occurs once, or None if no single attribute achieves that.
    """
    for number, keyword in enumerate(ACQUISITION_KEYS):
        parts: dict[str, list[tuple[SliceHeader, ...]]] = defaultdict(list)
        for files in group.slices:
            parts[files[0].acquisition[number]].append(files)
        if len(parts) < 2 or len(parts) > len(group.slices) // 2 + 1:
            continue
        groups = [
            SliceGroup(f"{group.name}|{keyword}={value}", tuple(slices)) for value, slices in sorted(parts.items())
        ]
        if not any(part.clashes() for part in groups):
            return groups
    return None
