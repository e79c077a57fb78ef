"""What the header of a DICOM file says: is it a CT image, and where does each of its slices lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from monai_ssl_transfer.data.ct.body_part import body_part_from_tags
from monai_ssl_transfer.data.ct.dicom_file import identifiers_of, open_header, transfer_syntax_of
from monai_ssl_transfer.data.ct.volume import MAXIMUM_TILT_DEGREES, Plane
from monai_ssl_transfer.data.refusal import RefusedFile

_IMAGE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
}
_OTHER_OBJECTS = {
    "SEG": "a DICOM segmentation, not an image",
    "RTSTRUCT": "contours (RTSTRUCT), not an image",
    "RTDOSE": "a radiotherapy dose, not an image",
    "RTPLAN": "a radiotherapy plan, not an image",
    "SR": "a structured report, not an image",
    "PR": "a presentation state, not an image",
    "KO": "a key object selection, not an image",
    "REG": "a registration, not an image",
    "DOC": "a document, not an image",
}


@dataclass(frozen=True)
class SliceHeader:
    """One CT slice (a file, or a frame of one) as its header describes it.

    Lengths are in mm, directions in DICOM's LPS axes.
    """

    path: str
    frame: int
    sop_uid: str
    series_uid: str
    patient: str
    rows: int
    columns: int
    spacing: tuple[float, float]
    origin: tuple[float, float, float]
    column_direction: tuple[float, float, float]
    row_direction: tuple[float, float, float]
    thickness: float
    slope: float
    intercept: float
    bits_allocated: int
    bits_stored: int
    signed: bool
    padding: tuple[int, int] | None
    transfer_syntax: str
    pixel_offset: int  # of the pixel bytes in the file, -1 if they must be parsed for
    acquisition: tuple[str, ...]  # what may tell slices at one position apart, see ACQUISITION_KEYS
    body_part: int

    @property
    def plane(self) -> Plane:
        """Where the slice lies, as stored."""
        return Plane(
            origin=np.array(self.origin),
            row_step=np.array(self.row_direction) * self.spacing[0],
            column_step=np.array(self.column_direction) * self.spacing[1],
            shape=(self.rows, self.columns),
        )


# In this order they are tried to tell slices at one position apart; some names are those of enhanced objects.
ACQUISITION_KEYS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "StackID",
    "ConvolutionKernel",
    "ImageType",
    "AcquisitionTime",
)


def read_header(path: str | Path) -> tuple[tuple[SliceHeader, ...], frozenset[str]]:
    """Read the header of a DICOM file.

    Args:
        path: a file with or without preamble, single- or multi-frame.

    Returns:
        One header per slice, and the texts in the header that may identify the patient.

    Raises:
        RefusedFile: it is not a CT image with a known geometry.
    """
    dataset, offset = open_header(path)
    return headers_of(str(path), dataset, offset), identifiers_of(dataset)


def headers_of(path: str, dataset: Dataset, offset: int) -> tuple[SliceHeader, ...]:
    """Check that a header is a CT image's and turn it into one ``SliceHeader`` per slice."""
    try:
        _check_object(path, dataset)
        if offset == -2 or not dataset.get("Rows") or not dataset.get("Columns"):
            raise RefusedFile(path, "no pixel data", "has no pixel data")
        _check_pixels(path, dataset)
        headers = tuple(_slices(path, dataset, offset))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise RefusedFile(
            path, "damaged header", "a value in its DICOM header is damaged, export the file again"
        ) from error
    for header in headers:
        _check_geometry(header)
    return headers


def _check_object(path: str, dataset: Dataset) -> None:
    modality, sop_class = (
        str(dataset.get("Modality", "") or "").strip().upper(),
        str(dataset.get("SOPClassUID", "") or ""),
    )
    if "DirectoryRecordSequence" in dataset or sop_class == "1.2.840.10008.1.3.10":
        raise RefusedFile(path, "DICOMDIR", "a DICOMDIR; the files that it lists are read themselves")
    if modality in _OTHER_OBJECTS:
        raise RefusedFile(path, f"not an image ({modality})", _OTHER_OBJECTS[modality])
    if not modality and not sop_class:
        raise RefusedFile(path, "not a CT image", "has neither a modality nor a SOP class in its DICOM header")
    if modality != "CT":
        shown = modality if re.fullmatch(r"[A-Z]{2,10}", modality) else "unknown"
        raise RefusedFile(path, f"modality {shown}", f"modality {shown}, not CT")
    if sop_class and sop_class not in _IMAGE_CLASSES:
        raise RefusedFile(path, "not a CT image", "modality CT but not a CT image object (secondary capture or other)")
    if "LOCALIZER" in [str(part).upper() for part in _multi(dataset.get("ImageType"))]:
        raise RefusedFile(path, "localizer", "a localizer (scout), not an axial slice")


def _check_pixels(path: str, dataset: Dataset) -> None:
    if int(dataset.get("SamplesPerPixel", 1) or 1) != 1 or not str(
        dataset.get("PhotometricInterpretation", "MONOCHROME2")
    ).startswith("MONOCHROME"):
        raise RefusedFile(path, "colour pixels", "has colour pixels, not one HU value per pixel")
    if int(dataset.get("BitsAllocated", 0) or 0) not in (8, 16, 32):
        raise RefusedFile(path, "bit depth", "its pixels are not of 8, 16 or 32 bits")
    stored = int(dataset.get("BitsStored", 0) or dataset.BitsAllocated)
    if not 1 <= stored <= dataset.BitsAllocated or int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise RefusedFile(path, "bit depth", "its bits stored, bits allocated and high bit do not fit together")
    if str(dataset.get("RescaleType", "") or "").strip().upper() in {"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"}:
        raise RefusedFile(path, "not in HU", "its values are another quantity (density, atomic number), not HU")


def _check_geometry(header: SliceHeader) -> None:
    numbers = np.array([*header.spacing, *header.origin, *header.column_direction, *header.row_direction])
    column, row = np.array(header.column_direction), np.array(header.row_direction)
    if not np.isfinite([*numbers, header.slope, header.intercept]).all() or header.slope == 0:
        raise RefusedFile(
            header.path, "damaged geometry", "its position, spacing or rescale slope is not a usable number"
        )
    if min(header.spacing) < 0.01 or max(header.spacing) > 50:
        raise RefusedFile(header.path, "pixel spacing", "its pixel spacing is not between 0.01 and 50 mm")
    if abs(np.linalg.norm(column) - 1) > 0.01 or abs(np.linalg.norm(row) - 1) > 0.01 or abs(float(column @ row)) > 0.01:
        raise RefusedFile(
            header.path, "damaged geometry", "its image orientation is not a pair of perpendicular unit vectors"
        )
    if header.plane.tilt_degrees() > MAXIMUM_TILT_DEGREES:
        raise RefusedFile(
            header.path,
            "not axial",
            f"its plane is more than {MAXIMUM_TILT_DEGREES:.0f} degrees from axial, reformat it to axial slices",
        )


def _multi(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if type(value).__name__ == "MultiValue" or isinstance(value, (list, tuple)) else [value]


def _slices(path: str, dataset: Dataset, offset: int) -> Iterator[SliceHeader]:
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        if int(dataset.get("NumberOfFrames", 1) or 1) > 1:
            raise RefusedFile(path, "multi-frame without geometry", "has several frames but no position for each")
        yield _slice(path, dataset, [dataset], 0, offset)
        return
    if len(frames) != int(dataset.get("NumberOfFrames", 1) or 1):
        raise RefusedFile(
            path, "damaged header", "the number of its frames differs from the number of their descriptions"
        )
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for number, frame in enumerate(frames):
        places = [
            item for group in (frame, shared[0]) for element in group if element.VR == "SQ" for item in element.value
        ]
        yield _slice(path, dataset, [*places, dataset], number, offset)


def _value(places: list[Dataset], name: str) -> Any:
    for place in places:
        if name in place and place.get(name) not in (None, ""):
            return place.get(name)
    return None


def _numbers(path: str, places: list[Dataset], name: str, count: int) -> tuple[float, ...]:
    values = tuple(float(value) for value in _multi(_value(places, name)))
    if len(values) != count:
        raise RefusedFile(path, f"no {name}", f"has no {name} in its header, so its place in the patient is unknown")
    return values


def _slice(path: str, dataset: Dataset, places: list[Dataset], frame: int, offset: int) -> SliceHeader:
    orientation = _numbers(path, places, "ImageOrientationPatient", 6)
    signed, bits = bool(dataset.get("PixelRepresentation", 0)), int(dataset.BitsAllocated)
    return SliceHeader(
        path=path,
        frame=frame,
        sop_uid=str(dataset.get("SOPInstanceUID", "") or path) + (f"#{frame}" if len(places) > 1 else ""),
        series_uid=str(dataset.get("SeriesInstanceUID", "") or Path(path).parent),
        patient=_patient(path, dataset),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        spacing=_numbers(path, places, "PixelSpacing", 2),  # type: ignore[arg-type]
        origin=_numbers(path, places, "ImagePositionPatient", 3),  # type: ignore[arg-type]
        column_direction=orientation[:3],  # type: ignore[arg-type]
        row_direction=orientation[3:],  # type: ignore[arg-type]
        thickness=float(_value(places, "SliceThickness") or 0.0),
        slope=float(1.0 if _value(places, "RescaleSlope") is None else _value(places, "RescaleSlope")),
        intercept=float(_value(places, "RescaleIntercept") or 0.0),
        bits_allocated=bits,
        bits_stored=int(dataset.get("BitsStored", bits) or bits),
        signed=signed,
        padding=_padding(dataset, signed, bits),
        transfer_syntax=transfer_syntax_of(dataset),
        pixel_offset=offset,
        acquisition=tuple("\\".join(map(str, _multi(_value(places, name)))) for name in ACQUISITION_KEYS),
        body_part=_body_part(places),
    )


def _body_part(places: list[Dataset]) -> int:
    texts = [str(_value(places, name) or "") for name in ("StudyDescription", "SeriesDescription", "ProtocolName")]
    return int(body_part_from_tags(str(_value(places, "BodyPartExamined") or ""), tuple(texts)))


def _padding(dataset: Dataset, signed: bool, bits: int) -> tuple[int, int] | None:
    value = dataset.get("PixelPaddingValue", None)
    if value in (None, ""):
        return None
    limit = dataset.get("PixelPaddingRangeLimit", None)
    ends = [_as_pixel(item, signed, bits) for item in (value, value if limit in (None, "") else limit)]
    return min(ends), max(ends)


def _as_pixel(value: Any, signed: bool, bits: int) -> int:
    """A padding value as the pixels hold it: many writers give it the wrong sign or, as raw bytes, no number at all."""
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    number %= 1 << bits
    return number - (1 << bits) if signed and number >= 1 << (bits - 1) else number


def _patient(path: str, dataset: Dataset) -> str:
    """What identifies the patient; placeholders of anonymised data stand for nobody, then the study does."""
    patient = str(dataset.get("PatientID", "") or "").strip()
    if re.sub(r"[^a-z0-9]", "", patient.lower()) not in {
        "",
        "anonymous",
        "anonymized",
        "anonymised",
        "anon",
        "unknown",
        "none",
        "0",
    }:
        return f"id:{patient}"
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        if dataset.get(name):
            return f"{name}:{dataset.get(name)}"
    return f"folder:{Path(path).parent}"
