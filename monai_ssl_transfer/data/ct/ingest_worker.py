"""What the worker processes of an ingest do: look at files, and read and encode one series."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.data.ct.dicom import read_slice, resolve_clashes, series_geometry, spare_copies
from monai_ssl_transfer.data.ct.dicom_file import identifiers_of, looks_like_dicom, open_header
from monai_ssl_transfer.data.ct.dicom_header import SliceHeader, headers_of
from monai_ssl_transfer.data.ct.dicom_series import SliceGroup
from monai_ssl_transfer.data.ct.nifti import check_hounsfield, open_nifti
from monai_ssl_transfer.data.ct.volume import slice_gaps, stack_affine
from monai_ssl_transfer.data.file_listing import ARCHIVE_SUFFIXES, SYSTEM_FILES
from monai_ssl_transfer.data.redaction import Pseudonyms
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.data.store import SeriesEntry
from monai_ssl_transfer.data.store_writer import EncodedSlice, encode_slice


@dataclass(frozen=True)
class FileScan:
    """What a look at one file found.

    Args:
        path: the file.
        headers: of its CT slices, if it is DICOM.
        nifti_hash: hash of its bytes, if it is NIfTI.
        refusal: why it is left out.
        ignored: whether it is no scan at all.
        identifiers: texts of its header that may identify the patient.
    """

    path: str
    headers: tuple[SliceHeader, ...] = ()
    nifti_hash: str = ""
    refusal: RefusedFile | None = None
    ignored: bool = False
    identifiers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SeriesJob:
    """One series to read.

    Args:
        name: clear text that is unique for the series and the same in every run.
        group: its slices, if it is DICOM.
        nifti: its file, if it is NIfTI.
        patient: clear text that identifies the patient.
        body_part: region of a NIfTI volume as given by the user.
        encode: False to find out only whether the files are sound (their series is in the store already).
    """

    name: str
    group: SliceGroup | None = None
    nifti: str = ""
    patient: str = ""
    body_part: int = int(BodyPart.UNKNOWN)
    encode: bool = True


@dataclass
class SeriesResult:
    """Series ready for the store, and what became of the files of a job.

    Args:
        series: entry and slices of each series (several when a series held several acquisitions).
        kept: path and series key of each file that was used.
        refused: the other files.
    """

    series: list[tuple[SeriesEntry, list[EncodedSlice]]] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    refused: list[RefusedFile] = field(default_factory=list)


def scan_files(paths: Sequence[str]) -> list[FileScan]:
    """Look at some files: what is each, and which CT slices does it hold."""
    return [_scan_file(path) for path in paths]


def _scan_file(path: str) -> FileScan:
    name = Path(path).name.lower()
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return FileScan(
                path, refusal=RefusedFile(path, "not a file", "neither a file nor a folder, so it was not opened")
            )
        if name in SYSTEM_FILES or name.startswith("._"):
            return _ignored(path, "system file", "a file of the operating system, not a scan")
        if name.endswith((".nii", ".nii.gz")):
            return FileScan(path, nifti_hash=_content_hash(path))
        with Path(path).open("rb") as file:
            start = file.read(132)
    except OSError as error:
        return FileScan(
            path, refusal=RefusedFile(path, "unreadable", f"cannot be read ({type(error).__name__}), check its rights")
        )
    if looks_like_dicom(start):
        return _scan_dicom(path)
    if not start:
        return _ignored(path, "empty file", "an empty file")
    if name.endswith(ARCHIVE_SUFFIXES):
        return FileScan(path, refusal=RefusedFile(path, "archive", "an archive, unpack it and ingest the folder again"))
    if name.endswith((".hdr", ".img", ".nrrd", ".mha", ".mhd", ".mgz")):
        return FileScan(
            path,
            refusal=RefusedFile(path, "other image format", "an image format that is not read, convert it to NIfTI"),
        )
    if name.endswith((".dcm", ".ima")):
        sentence = "named as DICOM but begins with neither a preamble nor a DICOM data set, export it again"
        return FileScan(path, refusal=RefusedFile(path, "damaged header", sentence))
    return _ignored(path, "not a scan", "neither DICOM nor NIfTI")


def _ignored(path: str, code: str, sentence: str) -> FileScan:
    return FileScan(path, refusal=RefusedFile(path, code, sentence), ignored=True)


def _scan_dicom(path: str) -> FileScan:
    identifiers: frozenset[str] = frozenset()
    try:
        dataset, offset = open_header(path)
        identifiers = identifiers_of(dataset)
        return FileScan(path, headers=headers_of(path, dataset, offset), identifiers=identifiers)
    except RefusedFile as refusal:
        return FileScan(path, refusal=refusal, identifiers=identifiers)


def _content_hash(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_series(job: SeriesJob, salt: bytes) -> SeriesResult:
    """Read a series and encode its slices.

    Args:
        job: the series.
        salt: of the store, for the hashes that stand in it.
    """
    result, pseudonyms = SeriesResult(), Pseudonyms(salt)
    if job.group is None:
        _read_nifti(job, pseudonyms, result)
        return result
    groups, result.refused = resolve_clashes(job.group) if job.group.clashes() else ([job.group], [])
    for group in groups:
        _read_group(job, group, pseudonyms, result)
    return result


def source_number(pseudonyms: Pseudonyms, origin: str) -> int:
    """What stands in the store for the origin of a slice: its SOP instance UID, or file hash and slice number."""
    return pseudonyms.number("source", origin)


def series_key(pseudonyms: Pseudonyms, name: str) -> str:
    """The key of a series in the store."""
    return pseudonyms.hexadecimal("series", name)


def _read_group(job: SeriesJob, group: SliceGroup, pseudonyms: Pseudonyms, result: SeriesResult) -> None:
    headers, slices = [], []
    positions = group.positions()
    for files, position in zip(group.slices, positions, strict=True):
        read, refused = read_slice(files)
        result.refused += refused
        if read is None:
            continue
        header = read.header
        headers.append(header)
        result.refused += spare_copies(files, header, refused)
        if job.encode:
            source = source_number(pseudonyms, header.sop_uid)
            spacing = header.plane.canonical()[0].spacing
            slices.append(
                encode_slice(
                    read.hu, position=float(position), spacing=spacing, body_part=header.body_part, source=source
                )
            )
    if not headers:
        return
    key = series_key(pseudonyms, group.name)
    result.kept.update({header.path: key for header in headers})
    if job.encode:
        positions, affine = series_geometry(headers)
        result.series.append((_entry(key, job, pseudonyms, "dicom", positions, affine), slices))


def _read_nifti(job: SeriesJob, pseudonyms: Pseudonyms, result: SeriesResult) -> None:
    key = series_key(pseudonyms, job.name)
    try:
        stack = open_nifti(job.nifti)
        check_hounsfield(stack)
    except RefusedFile as refusal:
        result.refused.append(refusal)
        return
    result.kept[job.nifti] = key
    if not job.encode:
        return
    spacing, positions = stack.planes[0].spacing, stack.positions
    slices = [
        encode_slice(
            hu,
            position=float(position),
            spacing=spacing,
            body_part=job.body_part,
            source=source_number(pseudonyms, f"{job.name}#{number}"),
        )
        for number, (hu, position) in enumerate(zip(stack.hu(), positions, strict=True))
    ]
    entry = _entry(key, job, pseudonyms, "nifti", positions, stack_affine(stack.planes))
    result.series.append((entry, slices))


def _entry(
    key: str, job: SeriesJob, pseudonyms: Pseudonyms, kind: str, positions: np.ndarray, affine: np.ndarray
) -> SeriesEntry:
    gap, uneven = slice_gaps(positions)
    numbers = tuple(float(value) for value in affine.ravel())
    return SeriesEntry(key, pseudonyms.hexadecimal("patient", job.patient), kind, gap, uneven, numbers)
