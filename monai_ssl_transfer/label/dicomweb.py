"""MONAI Label's datastore over DICOMweb, made to work offline and to keep what it fetches whole."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.datastore.utils.convert import dicom_to_nifti
from monailabel.datastore.utils.dicom import dicom_web_download_series, dicom_web_upload_dcm
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom.dataset import Dataset

from monai_ssl_transfer.errors import LabelError
from monai_ssl_transfer.label.datastore import SafeDatastore
from monai_ssl_transfer.label.dicom_segmentation import mask_values, read_segmentation, write_segmentation

_UID = re.compile(r"(?=.{1,64}\Z)\d+(\.\d+)*")
_GRID_TOLERANCE = 1e-3
"""mm; NIfTI keeps its geometry as float32."""


def dicomweb_datastore(url: str) -> DicomWebStudies:
    """Connect to a DICOMweb server (Orthanc, dcm4chee, ...) as MONAI Label's settings say, without Google's cloud.

    Args:
        url: root of the service, such as ``http://127.0.0.1:8042/dicom-web``.

    Raises:
        LabelError: the server does not answer, or not as DICOMweb.
    """
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    client = DICOMwebClientX(
        url=url,
        session=create_session_from_user_pass(user, password) if user and password else None,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    cache = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or Path.home() / ".cache" / "monailabel" / "dicom"
    folder = Path(cache) / hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()  # as stock: one cache for both
    search, by_frame = settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER, settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME
    return DicomWebStudies(client, search, folder, by_frame)


@contextmanager
def _speaking(url: str) -> Iterator[None]:
    """Say in one sentence what a DICOMweb server refused or why it cannot be reached."""
    try:
        yield
    except (requests.RequestException, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        sentence = f"{url} does not answer as a DICOMweb server ({first}), check that it runs there."
        raise LabelError(sentence, 502) from error


class DicomWebStudies(SafeDatastore):
    """The series of a DICOMweb server as images, DICOM SEG objects as their final labels.

    Other than MONAI Label's own: no program is downloaded for DICOM SEG, a series is in the cache whole or not at all,
    image ids are UIDs, lists are asked anew each time (stock: every two hours), the newest of several SEG objects
    counts, and labels of any program come on the grid of the image.

    Args:
        client: the connection.
        search: which series are images, such as ``{"Modality": "CT"}``.
        cache: folder that keeps the series as DICOM and NIfTI, and the labels.
        by_frame: fetch pixels frame by frame, for servers that cannot send whole series.

    Raises:
        LabelError: the server does not answer, or not as DICOMweb.
    """

    def __init__(self, client: DICOMwebClientX, search: dict[str, Any], cache: Path, by_frame: bool = False) -> None:
        self._client, self._search, self._by_frame = client, search, by_frame
        self._fetching = threading.RLock()
        self._said: dict[str, tuple[str, str]] = {}
        super().__init__(str(cache))
        self.list_images()

    def name(self) -> str:
        """The address of the server."""
        return str(self._client.base_url)

    def list_images(self) -> list[str]:
        """Series UIDs of the images."""
        return [_text(series, "SeriesInstanceUID") for series in self._series(self._search)]

    def get_image_uri(self, image_id: str) -> str:
        """NIfTI file of a series, fetched at first use.

        Raises:
            LabelError: the id is no UID, the server has no such series, or sends less than all of it.
        """
        file = Path(self._datastore.image_path()) / f"{_checked(image_id)}.nii.gz"
        with self._fetching:
            folder = self._series_folder(image_id)
            if image_id not in self._datastore.objects:
                converted = dicom_to_nifti(str(folder))
                try:
                    super().add_image(image_id, converted, self._facts(image_id))
                finally:
                    Path(converted).unlink(missing_ok=True)
        return str(file)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images that have a DICOM SEG object on the server."""
        return sorted(self._newest_segmentations())

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images without a DICOM SEG object on the server."""
        labelled = self._newest_segmentations()
        return [image for image in self.list_images() if image not in labelled]

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label in the cache; with the tag ``final`` it goes to the server first, as a DICOM SEG object.

        Raises:
            LabelError: the label is not on the grid of its image, or the server does not take it.
            DataError: the label marks nothing or holds other things than labels.
        """
        image = Path(self.get_image_uri(image_id))
        info = dict(label_info or {})
        with tempfile.TemporaryDirectory() as scratch:
            mask = _on_grid(Path(label_filename), image, Path(scratch))
            if label_tag == DefaultLabelTag.FINAL:
                file = Path(scratch) / "segmentation.dcm"
                write_segmentation(mask, self._series_folder(image_id), _names(info), file)
                with _speaking(self.name()):
                    series = dicom_web_upload_dcm(str(file), self._client)
                if not series:
                    raise LabelError(f"{self.name()} did not take the segmentation of {image_id}, see its log.", 502)
                info |= self._facts(image_id) | {"SeriesInstanceUID": series}
            return super().save_label(image_id, str(mask), label_tag, info)

    def _series(self, search: dict[str, Any]) -> list[Dataset]:
        """What the server says of the series that fit a search."""
        with _speaking(self.name()):
            return [Dataset.from_json(one) for one in self._client.search_for_series(search_filters=search)]

    def _facts(self, uid: str) -> dict[str, str]:
        """What MONAI Label keeps with an image or a label that came from DICOM."""
        found = [one for one in self._series({"SeriesInstanceUID": uid}) if _text(one, "SeriesInstanceUID") == uid]
        if not found:
            raise LabelError(f"{self.name()} has no series {uid}, choose one of the list of images.", 404)
        names = (
            "SeriesInstanceUID",
            "StudyInstanceUID",
            "StudyDate",
            "StudyTime",
            "Modality",
            "RetrieveURL",
            "PatientID",
        )
        return {name: _text(found[0], name) or "UNK" for name in names}

    def _series_folder(self, uid: str) -> Path:
        """The folder with all files of a series, fetched at first use; another name until it is complete."""
        folder = Path(self._datastore.image_path()) / _checked(uid)
        if folder.is_dir():
            return folder
        study = self._facts(uid)["StudyInstanceUID"]
        partial = folder.with_name(f".{uid}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with _speaking(self.name()):
            expected = len(self._client.search_for_instances(study, uid))
            dicom_web_download_series(study, uid, str(partial), self._client, self._by_frame)
        got = len(list(partial.glob("*.dcm")))
        if got < expected:
            shutil.rmtree(partial)
            raise LabelError(f"{self.name()} sent {got} of the {expected} files of series {uid}, try again.", 502)
        return partial.rename(folder)

    def _newest_segmentations(self) -> dict[str, str]:
        """The image's series UID -> the series UID of the newest DICOM SEG object that was drawn on it."""
        images, newest = set(self.list_images()), dict[str, tuple[str, str]]()
        for series in self._series({"Modality": "SEG"}):
            uid = _text(series, "SeriesInstanceUID")
            image, made = self._reference(_text(series, "StudyInstanceUID"), uid)
            if image in images:
                newest[image] = max(newest.get(image, ("", "")), (made, uid))
        return {image: uid for image, (_, uid) in newest.items()}

    def _reference(self, study: str, uid: str) -> tuple[str, str]:
        """The image that a SEG object was drawn on ("" if it does not say) and when it was written."""
        if uid not in self._said:
            with _speaking(self.name()):
                header = Dataset.from_json(self._client.retrieve_series_metadata(study, uid)[0])
            referenced = header.get("ReferencedSeriesSequence")
            image = _text(referenced[0], "SeriesInstanceUID") if referenced else ""
            self._said[uid] = image, _text(header, "ContentDate") + _text(header, "ContentTime")
        return self._said[uid]

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Images with their final labels, for training; what is on the server is brought into the cache first."""
        self._fetch_labels()
        return list(super().datalist(full_path))

    def _fetch_labels(self) -> None:
        """Bring the newest SEG object of every image into the cache; what left the server leaves the training data."""
        newest = self._newest_segmentations()
        for image in set(super().get_labeled_images()) - set(newest):
            super().remove_label(image, DefaultLabelTag.FINAL)
        for image, uid in newest.items():
            if self.get_label_info(image, DefaultLabelTag.FINAL).get("SeriesInstanceUID") != uid:
                self._fetch_label(image, uid)

    def _fetch_label(self, image_id: str, uid: str) -> None:
        """Bring one SEG object into the cache as the final label of its image."""
        image = self.get_image_uri(image_id)
        with tempfile.TemporaryDirectory() as scratch, self._fetching:
            file = next(self._series_folder(uid).glob("*.dcm"))
            mask = Path(scratch) / f"{image_id}.nii.gz"
            names = read_segmentation(file, image, mask)
            info = self._facts(uid) | {"params": {"label_names": names}}
            super().save_label(image_id, str(mask), DefaultLabelTag.FINAL, info)


def _checked(uid: str) -> str:
    """A UID; anything else could name a file outside the cache."""
    if not _UID.fullmatch(uid):
        raise LabelError(f"{uid!r} is no series UID (numbers and dots), choose one of the list of images.", 404)
    return uid


def _text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "")


def _names(info: dict[str, Any]) -> dict[int, str]:
    """Names of the mask's values: as a viewer gives them (``label_info``), else as inference does (``label_names``)."""
    listed = [one for one in info.get("label_info") or [] if isinstance(one, dict) and one.get("name")]
    if listed:
        return {int(one.get("idx", number)): str(one["name"]) for number, one in enumerate(listed, 1)}
    names = (info.get("params") or {}).get("label_names") or {}
    return {int(value): str(name) for name, value in names.items()}


def _on_grid(label: Path, image: Path, scratch: Path) -> Path:
    """A label as NIfTI on the grid of its image; viewers also send bare voxels (``.bin``), which have its shape."""
    import SimpleITK as sitk  # noqa: N813

    grid = sitk.ReadImage(str(image))
    if label.suffix == ".bin":
        voxels = np.fromfile(label, np.uint8)
        if voxels.size != grid.GetNumberOfPixels():
            raise LabelError(f"the label has {voxels.size} voxels and its image {grid.GetSize()}, save it again.")
        mask = sitk.GetImageFromArray(voxels.reshape(grid.GetSize()[::-1]))
        mask.CopyInformation(grid)
    else:
        mask = _read_volume(label)
        if mask.GetSize() != grid.GetSize() or not all(
            np.allclose(one, other, rtol=0, atol=_GRID_TOLERANCE)
            for one, other in (
                (mask.GetOrigin(), grid.GetOrigin()),
                (mask.GetSpacing(), grid.GetSpacing()),
                (mask.GetDirection(), grid.GetDirection()),
            )
        ):
            raise LabelError(
                f"the label's grid ({mask.GetSize()} voxels) is not that of its image ({grid.GetSize()} voxels), "
                "save it in the geometry of the image."
            )
    mask_values(sitk.GetArrayViewFromImage(mask), label)
    file = scratch / "label.nii.gz"
    sitk.WriteImage(sitk.Cast(mask, sitk.sitkUInt8), str(file), True)
    return file


def _read_volume(file: Path) -> Any:
    """An image of SimpleITK, or a sentence."""
    import SimpleITK as sitk  # noqa: N813

    try:
        return sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise LabelError(f"the label {file.name} cannot be read, send NIfTI or NRRD.") from error
