"""Writes generated CT as the files that hospitals and challenges hand out: NIfTI in LiTS layout, DICOM series."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from nibabel import orientations
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from tqdm import tqdm

from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.data.phantoms.ct_scan import Phantom, PhantomOptions, make_ct_phantom
from monai_ssl_transfer.errors import DataError

ORIENTATIONS = ("LAS", "LPS", "RAS")
INTERCEPT = -1024
_BODY_PART_WORDS = {
    BodyPart.HEAD_NECK: ("HEAD", "NECK"),
    BodyPart.THORAX: ("CHEST", "THORAX"),
    BodyPart.ABDOMEN: ("ABDOMEN", "LIVER"),
    BodyPart.EXTREMITIES: ("LEG", "EXTREMITY"),
    BodyPart.HIP_PELVIS: ("PELVIS", "HIP"),
    BodyPart.SPINE: ("SPINE", "LSPINE"),
}
_FAMILY = (
    "Adler",
    "Brandt",
    "Castro",
    "Duval",
    "Eriksen",
    "Farkas",
    "Greco",
    "Hansen",
    "Ito",
    "Jansen",
    "Kaya",
    "Lind",
)
_GIVEN = ("Anna", "Boris", "Clara", "David", "Elif", "Frida", "Georg", "Hanna", "Ivo", "Julia", "Karl", "Lea")


def derived_seed(seed: int, *stream: int | str) -> int:
    """A 63-bit seed for one purpose: independent streams from one user seed."""
    text = "/".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def write_nifti(path: Path, array: np.ndarray, phantom: Phantom, orientation: str = "LPS") -> None:
    """Write an array of a phantom's grid as NIfTI.

    Args:
        path: ``.nii`` or ``.nii.gz`` file.
        array: (slices, rows, columns) in the phantom's order.
        phantom: whose geometry it has.
        orientation: axis codes of the file, towards which each voxel axis runs, e.g. ``"LPS"``.
    """
    change = orientations.ornt_transform(orientations.axcodes2ornt("PLS"), orientations.axcodes2ornt(orientation))
    voxels = np.ascontiguousarray(array.transpose(1, 2, 0))
    affine = phantom.affine @ orientations.inv_ornt_aff(change, voxels.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(orientations.apply_orientation(voxels, change)), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)


def write_lits_layout(
    folder: str | Path, cases: int, options: PhantomOptions | None = None, seed: int = 0
) -> list[dict[str, str]]:
    """Write liver cases as ``volume-N.nii.gz`` (int16 HU) and ``segmentation-N.nii.gz`` (0, 1 liver, 2 tumour).

    Orientation (LAS, LPS, RAS), spacing and the number of slices differ from case to case; ``options.tumour_share`` of
    any run of cases has tumours.

    Args:
        folder: where to write; made when it does not exist.
        cases: how many patients.
        options: what to generate; its number of slices is the largest one.
        seed: the patients.

    Returns:
        The cases as ``layouts.liver_cases`` lists them.
    """
    folder, options = Path(folder), options or PhantomOptions(slice_spacing=(3.5, 5.0))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number in tqdm(range(cases), desc="labelled liver cases", unit="case"):
        own = derived_seed(seed, "lits", number)
        sick = int((number + 1) * options.tumour_share + 1e-9) > int(number * options.tumour_share + 1e-9)
        slices = options.slices - own % max(options.slices // 8, 1)
        phantom = make_ct_phantom(own, replace(options, tumour_share=float(sick), slices=slices))
        orientation = ORIENTATIONS[number % len(ORIENTATIONS)]
        image, label = folder / f"volume-{number}.nii.gz", folder / f"segmentation-{number}.nii.gz"
        write_nifti(image, phantom.hu, phantom, orientation)
        write_nifti(label, phantom.labels, phantom, orientation)
        written.append({"case": str(number), "image": str(image), "label": str(label)})
    return written


def write_dicom_series(
    folder: str | Path,
    phantom: Phantom,
    *,
    patient: int = 0,
    body_part: BodyPart | None = None,
    seed: int = 0,
    series_number: int = 1,
) -> list[Path]:
    """Write a phantom as one series of CT Image Storage files, explicit VR little endian.

    As in many exports, the file names say nothing about the order of the slices. Name, ID, dates and UIDs are invented.

    Args:
        folder: where to write; made when it does not exist.
        phantom: the volume.
        patient: number of the invented patient; series of one patient share name, ID and study.
        body_part: what BodyPartExamined says; default: the region of most slices.
        seed: source of UIDs and file order.
        series_number: number of the series in the study.

    Returns:
        The files from inferior to superior.

    Raises:
        DataError: the body part has no DICOM word (UNKNOWN).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if body_part is None:
        body_part = BodyPart(int(np.bincount(phantom.body_part).argmax()))
    if body_part not in _BODY_PART_WORDS:
        raise DataError(f"{folder}: BodyPartExamined cannot be written for {body_part.name}, choose a body region.")
    rng = np.random.Generator(np.random.Philox(derived_seed(seed, "dicom", patient, series_number)))
    dataset = _series_header(phantom, patient, seed, series_number)
    dataset.BodyPartExamined = _BODY_PART_WORDS[body_part][int(rng.integers(2))]
    names = rng.permutation(len(phantom.hu))
    descending = bool(rng.integers(2))
    files = []
    for number in range(len(phantom.hu)):
        instance = len(phantom.hu) - number if descending else number + 1
        _set_slice(dataset, phantom, number, instance, _uid(seed, patient, series_number, number))
        path = folder / f"IM{names[number]:05d}.dcm"
        dataset.save_as(path)
        files.append(path)
    return files


def _uid(*parts: int | str) -> UID:
    """A UID under 2.25 (a UUID as a decimal number) that follows from the seed."""
    text = "/".join(str(part) for part in ("ssl-transfer phantom", *parts))
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}")


def _series_header(phantom: Phantom, patient: int, seed: int, series_number: int) -> FileDataset:
    """Everything that the slices of a series have in common."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # pydicom fills in the true length where the element is present
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _uid("implementation")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    if int(pydicom.__version__.partition(".")[0]) < 3:  # later versions take it from the file meta
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
    person = derived_seed(seed, "person", patient)
    date = f"20{10 + person % 14}{1 + person // 7 % 12:02d}{1 + person // 91 % 28:02d}"
    dataset.SOPClassUID = CTImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.ContentTime = "101500"
    dataset.AccessionNumber, dataset.StudyID, dataset.PositionReferenceIndicator = "", str(patient + 1), ""
    dataset.Modality, dataset.Manufacturer = "CT", "ssl-transfer phantom"
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = f"{_FAMILY[person % len(_FAMILY)]}^{_GIVEN[person // 12 % len(_GIVEN)]}"
    dataset.PatientID = f"PHANTOM-{seed}-{patient:04d}"
    dataset.PatientBirthDate, dataset.PatientSex = f"19{40 + person % 50}0101", "FM"[person % 2]
    dataset.StudyInstanceUID = _uid(seed, patient)
    dataset.SeriesInstanceUID = _uid(seed, patient, series_number)
    dataset.FrameOfReferenceUID = _uid(seed, patient, "frame")
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.PatientPosition = series_number, 1, "HFS"
    dataset.KVP, dataset.SliceThickness = "120", f"{phantom.slice_spacing:.4f}"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [f"{value:.6f}" for value in phantom.spacing]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = phantom.hu.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(INTERCEPT), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    return dataset


def _set_slice(dataset: FileDataset, phantom: Phantom, number: int, instance: int, uid: UID) -> None:
    """What differs from slice to slice."""
    x, y, z = phantom.origin
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.InstanceNumber = instance
    position = (-x, -y, z + number * phantom.slice_spacing)  # DICOM counts to the left and to posterior
    dataset.ImagePositionPatient = [f"{value:.4f}" for value in position]
    dataset.SliceLocation = f"{position[2]:.4f}"
    dataset.PixelData = (phantom.hu[number].astype(np.int32) - INTERCEPT).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
