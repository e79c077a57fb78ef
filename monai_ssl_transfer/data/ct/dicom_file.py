"""Opening DICOM files for their headers: with or without preamble, and where in the file the pixels begin."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from monai_ssl_transfer.data.refusal import RefusedFile

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_IDENTIFIERS = """
PatientName PatientID OtherPatientIDs OtherPatientNames PatientBirthName AccessionNumber StudyID
PatientBirthDate StudyDate SeriesDate AcquisitionDate ContentDate StudyInstanceUID SeriesInstanceUID
SOPInstanceUID FrameOfReferenceUID ReferringPhysicianName PerformingPhysicianName OperatorsName
NameOfPhysiciansReadingStudy DeviceSerialNumber PatientAddress
"""
_GEOMETRY = """
SOPClassUID Modality ImageType Rows Columns SamplesPerPixel HighBit RescaleType PhotometricInterpretation NumberOfFrames
BitsAllocated BitsStored PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope
RescaleIntercept PixelSpacing ImagePositionPatient ImageOrientationPatient SliceThickness AcquisitionNumber
TemporalPositionIdentifier TriggerTime NominalPercentageOfCardiacPhase ConvolutionKernel AcquisitionTime
InstanceNumber BodyPartExamined StudyDescription SeriesDescription ProtocolName SharedFunctionalGroupsSequence
PerFrameFunctionalGroupsSequence DirectoryRecordSequence
"""
# what pydicom raises on bytes that are not what they claim to be
_PARSING_ERRORS = (
    InvalidDicomError,
    NotImplementedError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
HEADER_TAGS = [*_IDENTIFIERS.split(), *_GEOMETRY.split()]


def looks_like_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes of a file are DICOM's: the preamble, or a data set that begins with group 2 or 8."""
    if start[128:132] == b"DICM":
        return True
    group, element = struct.unpack("<HH", start[:4]) if len(start) >= 8 else (0, 0)
    if group in (2, 8) and element <= 0x0018:
        return True
    return start[:4] in (b"\x00\x08\x00\x05", b"\x00\x08\x00\x08", b"\x00\x08\x00\x00")


def open_header(path: str | Path) -> tuple[Dataset, int]:
    """The parsed header without pixels, and the place of the pixel bytes (-1: unknown, -2: there are none)."""
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=HEADER_TAGS)
                syntax = transfer_syntax_of(dataset)
                return dataset, -1 if syntax == "1.2.840.10008.1.2.1.99" else _pixel_offset(file, syntax)
        except OSError as error:
            raise RefusedFile(
                path, "unreadable", f"cannot be read ({type(error).__name__}), check its rights"
            ) from error
        except _PARSING_ERRORS as error:
            raise RefusedFile(path, "damaged header", "its DICOM header is damaged, export the file again") from error


def transfer_syntax_of(dataset: Dataset) -> str:
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID", None) if meta is not None else None
    if syntax:
        return str(syntax)
    implicit, little = dataset_encoding(dataset)
    if not little:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"


def dataset_encoding(dataset: Dataset) -> tuple[bool, bool]:
    """Whether a parsed data set was implicit VR and little endian (pydicom 2.4 and 3 name these differently)."""
    encoding = getattr(dataset, "original_encoding", None)
    if encoding is None:
        encoding = (dataset.is_implicit_VR, dataset.is_little_endian)
    implicit, little = encoding
    return bool(implicit) if implicit is not None else True, bool(little) if little is not None else True


def _pixel_offset(file: BinaryIO, syntax: str) -> int:
    """Offset of the first pixel byte when the file stands at the PixelData tag; -2 when no element follows."""
    start = file.read(12)
    big = syntax == "1.2.840.10008.1.2.2"
    if len(start) < 8:
        return -2
    if struct.unpack(">HH" if big else "<HH", start[:4]) != (0x7FE0, 0x0010):
        return -1
    return file.tell() if start[4:6] in (b"OW", b"OB") else file.tell() - 4


def identifiers_of(dataset: Dataset) -> frozenset[str]:
    """Names, numbers, dates and UIDs of a header that may identify a person or an examination."""
    found: set[str] = set()
    for name in _IDENTIFIERS.split():
        value = dataset.get(name, None)
        values = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
        found.update(str(item).strip() for item in values if item not in (None, ""))
    return frozenset(found - {""})
