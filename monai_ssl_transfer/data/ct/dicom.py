"""Reading CT slices from DICOM as canonical volumes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monai_ssl_transfer.data.ct.dicom_header import SliceHeader, read_header
from monai_ssl_transfer.data.ct.dicom_pixels import read_hu
from monai_ssl_transfer.data.ct.dicom_series import (
    SliceGroup,
    group_slices,
    positions_along_normal,
    split_by_acquisition,
)
from monai_ssl_transfer.data.ct.volume import CtVolume, geometry_notes, slice_gaps, stack_affine
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.errors import DataError


@dataclass(frozen=True)
class ReadSlice:
    """A slice that was read: where it came from and its canonical pixels.

    Args:
        header: of the file (of several copies, the one that was read).
        hu: (rows, columns) int16 HU, canonical.
    """

    header: SliceHeader
    hu: np.ndarray


def read_slice(files: tuple[SliceHeader, ...]) -> tuple[ReadSlice | None, list[RefusedFile]]:
    """Read a slice from the first of its copies that is whole; the broken ones before it are returned as refusals."""
    refusals: list[RefusedFile] = []
    for header in files:
        try:
            pixels = read_hu(header)
        except RefusedFile as refusal:
            refusals.append(refusal)
            continue
        _, in_plane = header.plane.canonical()
        return ReadSlice(header, np.ascontiguousarray(in_plane.apply(pixels))), refusals
    return None, refusals


def spare_copies(files: tuple[SliceHeader, ...], used: SliceHeader, broken: list[RefusedFile]) -> list[RefusedFile]:
    """A refusal for each file of a slice that was neither used nor broken: a copy of the same SOP instance."""
    sentence = "a copy of a slice that was taken from another file (the same SOP instance)"
    told = {used.path, *(refusal.path for refusal in broken)}
    return [RefusedFile(header.path, "copy", sentence) for header in files if header.path not in told]


def resolve_clashes(group: SliceGroup) -> tuple[list[SliceGroup], list[RefusedFile]]:
    """Make every position of a group unique.

    Slices at one position with identical pixels: the first is kept. With different pixels: the group is split into its
    acquisitions when the headers tell them apart; otherwise all slices at that position are refused, as no choice
    between them would be sound.

    Returns:
        Groups without clashes, and a refusal for every file that was left out (code "duplicate" for identical pixels).
    """
    refusals: list[RefusedFile] = []
    dropped: set[int] = set()
    for run in group.clashes():
        seen: set[tuple[int, ...]] = set()
        for number in run:
            read, broken = read_slice(group.slices[number])
            if read is None:
                refusals += broken
                dropped.add(number)
                continue
            digest = (zlib.crc32(read.hu.tobytes()), zlib.adler32(read.hu.tobytes()), *read.hu.shape)
            if digest in seen:
                sentence = "the same pixels at the same position as another slice of its series"
                refusals += [RefusedFile(header.path, "duplicate", sentence) for header in group.slices[number]]
                dropped.add(number)
            seen.add(digest)
    group = _without(group, dropped)
    if not group.clashes():
        return ([group] if group.slices else []), refusals
    parts = split_by_acquisition(group)
    if parts is not None:
        return parts, refusals
    clashing = {number for run in group.clashes() for number in run}
    sentence = "another slice of its series has the same position but other pixels, and no header tells them apart"
    refusals += [RefusedFile(h.path, "position clash", sentence) for number in clashing for h in group.slices[number]]
    group = _without(group, clashing)
    return ([group] if group.slices else []), refusals


def _without(group: SliceGroup, numbers: set[int]) -> SliceGroup:
    return replace(group, slices=tuple(files for number, files in enumerate(group.slices) if number not in numbers))


def series_geometry(headers: list[SliceHeader]) -> tuple[np.ndarray, np.ndarray]:
    """Positions (slices,) in mm and affine (4, 4) to RAS mm for slices in order."""
    planes = [header.plane.canonical()[0] for header in headers]
    return positions_along_normal(headers), stack_affine(planes, headers[0].thickness or 1.0)


def iterate_volumes(headers: Iterable[SliceHeader]) -> Iterator[list[SliceHeader]]:
    """Headers of each volume among some slices, ordered by position; any refusal is raised."""
    for group in group_slices(headers):
        parts, refusals = resolve_clashes(group) if group.clashes() else ([group], [])
        for refusal in refusals:
            if refusal.code != "duplicate":
                raise refusal
        yield from ([files[0] for files in part.slices] for part in parts)


def read_dicom_series(files: Iterable[str | Path]) -> CtVolume:
    """Read the one CT volume that some DICOM files hold.

    Args:
        files: single-frame files of one series in any order, or one multi-frame file.

    Returns:
        The volume in canonical order; slices keep their true positions.

    Raises:
        DataError: a file is no CT image or damaged, or the files hold more than one volume.
    """
    paths = sorted(str(file) for file in files)
    if not paths:
        raise DataError("no DICOM files were given, name the files of one series")
    volumes = list(iterate_volumes(header for path in paths for header in read_header(path)[0]))
    if len(volumes) != 1:
        raise DataError(
            f"{paths[0]} and {len(paths) - 1} more files hold {len(volumes)} volumes, give the files of one at a time"
        )
    headers, slices = volumes[0], []
    for header in headers:
        read, refusals = read_slice((header,))
        if read is None:
            raise refusals[0]
        slices.append(read.hu)
    positions, affine = series_geometry(headers)
    notes = geometry_notes(affine, positions, slices[0].shape)
    spacing = headers[0].plane.canonical()[0].spacing
    gap, uneven = slice_gaps(positions)
    return CtVolume(np.stack(slices), positions, spacing, affine, gap, uneven, notes)
