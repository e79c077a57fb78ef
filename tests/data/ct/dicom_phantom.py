"""Tiny DICOM CT slices for tests, written with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = [1, 0, 0, 0, 1, 0]


def ct_dataset(pixels: np.ndarray, position: list[float], number: int = 1, **changes: Any) -> FileDataset:
    """A CT slice; ``changes`` set attributes, None deletes them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CT, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number}"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": f"1.2.826.0.1.{number}",
        "SeriesInstanceUID": "1.2.826.0.77",
        "StudyInstanceUID": "1.2.826.0.88",
        "Modality": "CT",
        "PatientID": "P1",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "PixelSpacing": [0.5, 0.75],
        "ImagePositionPatient": position,
        "ImageOrientationPatient": AXIAL,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "InstanceNumber": number,
        "PixelData": pixels.astype("<i2").tobytes(),
    } | changes
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: FileDataset, path: Path, implicit: bool = False) -> Path:
    """Write with preamble; works with pydicom 2.4 and 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.is_little_endian, dataset.is_implicit_VR = True, implicit
    dataset.save_as(path, write_like_original=False)
    return path


def write_ct(path: Path, pixels: np.ndarray, position: list[float], number: int = 1, **changes: Any) -> Path:
    """Write one CT slice."""
    return save(ct_dataset(pixels, position, number, **changes), path)


def pattern(seed: int, shape: tuple[int, int] = (12, 10)) -> np.ndarray:
    """HU without any symmetry, so that a wrong flip shows."""
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


def write_series(folder: Path, count: int = 4, gap: float = 2.0, **changes: Any) -> list[np.ndarray]:
    """Axial slices in descending file order; returns their pixels from inferior to superior."""
    slices = [pattern(seed) for seed in range(count)]
    uid = changes.pop("uid", 0)
    for number, pixels in enumerate(slices):
        file = folder / f"{count - number:03d}.dcm"
        write_ct(file, pixels, [-3.0, 4.0, number * gap], 1000 * uid + count - number, **changes)
    return slices


def write_enhanced(path: Path, frames: np.ndarray, positions: list[float], slopes: list[float], **changes: Any) -> Path:
    """An enhanced multi-frame CT whose geometry stands in functional groups."""
    dataset = ct_dataset(frames, [0, 0, 0], 900, NumberOfFrames=len(frames), **changes)
    for keyword in (
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([_item(ImageOrientationPatient=AXIAL)])
    shared.PixelMeasuresSequence = Sequence([_item(PixelSpacing=[0.5, 0.75], SliceThickness=2)])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for position, slope in zip(positions, slopes, strict=True):
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([_item(ImagePositionPatient=[-3.0, 4.0, position])])
        frame.PixelValueTransformationSequence = Sequence([_item(RescaleSlope=slope, RescaleIntercept=-10)])
        groups.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return save(dataset, path)


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item
