"""Masks as DICOM Segmentation objects and back, in Python: MONAI Label's own way downloads a program from GitHub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from monai_ssl_transfer.errors import DataError

_ANATOMY = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
_ABNORMAL = {
    "CodeValue": "49755003",
    "CodingSchemeDesignator": "SCT",
    "CodeMeaning": "Morphologically Abnormal Structure",
}
_KNOWN = {
    "liver": (_ANATOMY, ("10200004", "Liver"), (221, 130, 101)),
    "spleen": (_ANATOMY, ("78961009", "Spleen"), (157, 108, 162)),
    "tumour": (_ABNORMAL, ("108369006", "Neoplasm"), (144, 238, 144)),
    "tumor": (_ABNORMAL, ("108369006", "Neoplasm"), (144, 238, 144)),
    "lesion": (_ABNORMAL, ("52988006", "Lesion"), (230, 220, 70)),
}
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def write_segmentation(mask: str | Path, series: str | Path, names: Mapping[int, str], output: str | Path) -> None:
    """Write a mask as one DICOM SEG object of the series that it was drawn on.

    Patient and study come from the series; the segment numbers are the values of the mask.

    Args:
        mask: label volume (any format that SimpleITK reads) on the grid of the series.
        series: folder with the CT or MR images, one file each.
        names: what the values of the mask mean; a value without a name becomes ``label N``.
        output: the ``.dcm`` file.

    Raises:
        DataError: the mask marks nothing, holds other things than small whole numbers, or no image lies on its slices.
    """
    import SimpleITK as sitk  # noqa: N813
    from pydicom_seg import MultiClassWriter, template

    image = sitk.ReadImage(str(mask))
    values = sitk.GetArrayViewFromImage(image)
    present = mask_values(values, mask)
    if not present:
        raise DataError(
            f"{mask} marks nothing and DICOM knows no empty segmentation, mark something or save it with the tag "
            "'original', which stays on this computer."
        )
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(Path(series).glob("*.dcm"))]
    segments = [_segment(value, names.get(value, f"label {value}")) for value in range(1, max(present) + 1)]
    alphabet = sources[0].get("SpecificCharacterSet") if sources else None  # pydicom-seg makes it Latin-1, also here
    description = template.from_dcmqi_metainfo(_header(segments))
    dataset = MultiClassWriter(description).write(sitk.Cast(image, sitk.sitkUInt8), sources)
    if not any("DerivationImageSequence" in frame for frame in dataset.PerFrameFunctionalGroupsSequence):
        raise DataError(f"{mask} does not lie on the slices of its series, save it with the geometry of the image.")
    dataset.SegmentSequence = description.SegmentSequence  # numbers must run from 1 without gaps, also unused ones
    if alphabet:
        dataset.SpecificCharacterSet = alphabet
    dataset.save_as(output, write_like_original=False)


def read_segmentation(file: str | Path, reference: str | Path, output: str | Path) -> dict[str, int]:
    """Read a DICOM SEG object as a label volume on the grid of its image.

    Objects of other programs hold only the slices that are marked, or their own grid: each segment is brought to the
    grid of the image by nearest neighbour. Where segments overlap, the one of the higher number stays.

    Args:
        file: the ``.dcm`` file.
        reference: the image as a volume.
        output: volume to write, uint8; the values are the segment numbers.

    Returns:
        The value of each segment, by its label.

    Raises:
        DataError: the file is no DICOM SEG object or cannot be decoded.
    """
    import SimpleITK as sitk  # noqa: N813
    from pydicom_seg import SegmentReader

    grid = sitk.ReadImage(str(reference))
    try:
        segments = SegmentReader().read(pydicom.dcmread(file))
    except (ValueError, AttributeError, KeyError, OSError, pydicom.errors.InvalidDicomError) as error:
        raise DataError(f"{file} cannot be read as a DICOM segmentation ({error}), save it again.") from error
    labels = np.zeros(grid.GetSize()[::-1], np.uint8)
    for number in sorted(segments.available_segments):
        moved = sitk.Resample(segments.segment_image(number), grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
        labels[sitk.GetArrayViewFromImage(moved) > 0.5] = number
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(grid)
    sitk.WriteImage(image, str(output), True)
    return {str(info.get("SegmentLabel", number)): int(number) for number, info in segments.segment_infos.items()}


def mask_values(array: np.ndarray, mask: str | Path) -> list[int]:
    """The values above 0 of a mask.

    Args:
        array: the mask, any shape.
        mask: its file, for the message.

    Raises:
        DataError: a value is no whole number from 0 to 255.
    """
    values = np.unique(array)
    if not np.array_equal(values, np.clip(np.rint(values), 0, 255)):
        raise DataError(f"{mask} holds values that are no labels, save whole numbers from 0 to 255.")
    return [int(value) for value in values if value > 0]


def _segment(value: int, name: str) -> dict[str, Any]:
    """A segment in dcmqi's words; a name that has no code of SNOMED CT here gets a private one (99…)."""
    private = (_ANATOMY, (name[:16], name[:64]), _COLOURS[(value - 1) % len(_COLOURS)])
    category, (code, meaning), colour = _KNOWN.get(name.lower(), private)
    scheme = "SCT" if name.lower() in _KNOWN else "99SSLTRANSFER"
    return {
        "labelID": value,
        "SegmentLabel": name[:64],
        "SegmentDescription": name[:64],
        "SegmentAlgorithmType": "SEMIAUTOMATIC",
        "SegmentAlgorithmName": "MONAI Label",
        "SegmentedPropertyCategoryCodeSequence": category,
        "SegmentedPropertyTypeCodeSequence": {
            "CodeValue": code,
            "CodingSchemeDesignator": scheme,
            "CodeMeaning": meaning,
        },
        "recommendedDisplayRGBValue": list(colour),
    }


def _header(segments: list[dict[str, Any]]) -> dict[str, Any]:
    """What belongs to the object as a whole, in dcmqi's words."""
    return {
        "ContentCreatorName": "MONAI Label",
        "ClinicalTrialSeriesID": "1",
        "ClinicalTrialTimePointID": "1",
        "SeriesDescription": "Segmentation (MONAI Label)",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "BodyPartExamined": "",
        "segmentAttributes": [segments],
        "ContentLabel": "SEGMENTATION",
        "ContentDescription": "Segmentation saved with MONAI Label",
        "ClinicalTrialCoordinatingCenterName": "",
    }
