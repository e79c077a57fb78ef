"""A real DICOMweb server: series come whole, labels go back as DICOM SEG and come again, and nothing is downloaded."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs the label extra")

import pydicom
import requests
import SimpleITK as sitk  # noqa: N813
from monailabel.config import settings
from orthanc import MISSING, ORTHANC, PLUGIN, Archive, orthanc
from tiny_label import LIVER, label_server

from monai_ssl_transfer.data.phantoms.ct_scan import Phantom, PhantomOptions, make_ct_phantom
from monai_ssl_transfer.errors import DataError, LabelError
from monai_ssl_transfer.label.dicom_segmentation import read_segmentation, write_segmentation
from monai_ssl_transfer.label.dicomweb import DicomWebStudies, dicomweb_datastore

pytestmark = pytest.mark.skipif(not (ORTHANC and PLUGIN.is_file()), reason=MISSING)
NAMES = {"params": {"label_names": {"liver": 1, "tumour": 2}}}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_ct_phantom(7, PhantomOptions(size=48, slices=10, slice_spacing=(12.0, 14.0), tumour_share=1.0))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def series(archive: Archive, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> str:
    return archive.add(phantom, tmp_path_factory.mktemp("dicom"))[1]


@pytest.fixture
def store(archive: Archive, series: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DicomWebStudies]:
    """An empty cache, and no labels on the server when the test ends."""
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    yield dicomweb_datastore(archive.url)
    for one in archive.series("SEG"):
        archive.remove(one)


def mask_of(store: DicomWebStudies, series: str, file: Path) -> np.ndarray:
    """A mask with both labels on the grid of a series, written to a file."""
    grid = sitk.ReadImage(store.get_image_uri(series))
    array = np.zeros(grid.GetSize()[::-1], np.uint8)
    array[3:7, 10:30, 8:20], array[4:6, 12:18, 10:15] = 1, 2
    mask = sitk.GetImageFromArray(array)
    mask.CopyInformation(grid)
    sitk.WriteImage(mask, str(file))
    return array


def test_a_series_comes_whole_and_in_place(store: DicomWebStudies, series: str, phantom: Phantom) -> None:
    assert store.list_images() == [series]
    image = sitk.ReadImage(store.get_image_uri(series))
    assert np.array_equal(sitk.GetArrayFromImage(image), phantom.hu)
    left, posterior, up = image.GetOrigin()
    assert np.allclose((-left, -posterior, up), phantom.origin, atol=1e-2)
    assert store.get_image_info(series)["Modality"] == "CT"


def test_half_a_series_is_not_taken_for_a_whole_one(
    store: DicomWebStudies, series: str, phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a fetch that was killed, and a server that sends less than it has announced."""
    partial = Path(store._datastore.image_path()) / f".{series}.partial"
    partial.mkdir()
    (partial / "1.dcm").write_bytes(b"cut off")
    retrieve = store._client.retrieve_series
    monkeypatch.setattr(store._client, "retrieve_series", lambda *one: list(retrieve(*one))[:-2])
    with pytest.raises(LabelError, match=rf"sent 8 of the 10 files of series {series}"):
        store.get_image_uri(series)
    monkeypatch.undo()
    assert sitk.ReadImage(store.get_image_uri(series)).GetSize()[2] == len(phantom.hu)
    assert not partial.exists()


def test_many_requests_fetch_a_series_once(
    store: DicomWebStudies, series: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, retrieve = [], store._client.retrieve_series
    monkeypatch.setattr(store._client, "retrieve_series", lambda *one: calls.append(one) or retrieve(*one))
    threads = [threading.Thread(target=store.get_image_uri, args=(series,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_a_label_goes_to_the_server_and_comes_back(
    store: DicomWebStudies, archive: Archive, series: str, tmp_path: Path
) -> None:
    array = mask_of(store, series, tmp_path / "mask.nii.gz")
    assert store.get_unlabeled_images() == [series]
    store.save_label(series, str(tmp_path / "mask.nii.gz"), "final", NAMES)
    assert (store.get_labeled_images(), store.get_unlabeled_images()) == ([series], [])
    (stored,) = archive.instances(*archive.series("SEG"))
    header = pydicom.dcmread(io.BytesIO(stored))
    assert header.ReferencedSeriesSequence[0].SeriesInstanceUID == series
    assert [(one.SegmentNumber, one.SegmentLabel) for one in header.SegmentSequence] == [(1, "liver"), (2, "tumour")]
    shutil.rmtree(settings.MONAI_LABEL_DICOMWEB_CACHE_PATH)
    (pair,) = dicomweb_datastore(archive.url).datalist()
    image, label = sitk.ReadImage(pair["image"]), sitk.ReadImage(pair["label"])
    assert np.array_equal(sitk.GetArrayFromImage(label), array)
    assert label.GetOrigin() == image.GetOrigin()


def test_the_newest_of_two_segmentations_counts(
    store: DicomWebStudies, archive: Archive, series: str, tmp_path: Path
) -> None:
    """Also for another computer's cache; and what is removed from the server is not trained on."""
    array = mask_of(store, series, tmp_path / "mask.nii.gz")
    store.save_label(series, str(tmp_path / "mask.nii.gz"), "final", NAMES)
    (first,) = archive.series("SEG")
    (array > 1).astype(np.uint8).tofile(tmp_path / "corrected.bin")  # as OHIF sends it
    store.save_label(series, str(tmp_path / "corrected.bin"), "final", {"label_info": [{"name": "tumour"}]})
    assert len(archive.series("SEG")) == 2
    shutil.rmtree(settings.MONAI_LABEL_DICOMWEB_CACHE_PATH)
    other = dicomweb_datastore(archive.url)
    (pair,) = other.datalist()
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(pair["label"])), array > 1)
    archive.remove(next(one for one in archive.series("SEG") if one != first))
    (pair,) = other.datalist()
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(pair["label"])), array)
    archive.remove(first)
    assert other.datalist() == []


def test_what_cannot_be_kept_is_refused_in_a_sentence(
    store: DicomWebStudies, archive: Archive, series: str, tmp_path: Path
) -> None:
    array = mask_of(store, series, tmp_path / "mask.nii.gz")
    store.save_label(series, str(tmp_path / "mask.nii.gz"), "final", NAMES)
    moved = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    moved.SetOrigin((0.0, 0.0, 0.0))
    sitk.WriteImage(moved, str(tmp_path / "moved.nii.gz"))
    empty = sitk.GetImageFromArray(array * 0)
    empty.CopyInformation(sitk.ReadImage(str(tmp_path / "mask.nii.gz")))
    sitk.WriteImage(empty, str(tmp_path / "empty.nii.gz"))
    sitk.WriteImage(sitk.Cast(empty, sitk.sitkFloat32) + 0.5, str(tmp_path / "half.nii.gz"))
    (tmp_path / "short.bin").write_bytes(b"\1" * 100)
    (tmp_path / "broken.nii.gz").write_bytes(b"\1" * 100)
    sentences = {
        "moved.nii.gz": "geometry of the image",
        "empty.nii.gz": "marks nothing",
        "half.nii.gz": "no labels",
        "short.bin": "100 voxels",
        "broken.nii.gz": "cannot be read",
    }
    for name, sentence in sentences.items():
        with pytest.raises((LabelError, DataError), match=sentence):
            store.save_label(series, str(tmp_path / name), "final", NAMES)
    assert len(archive.series("SEG")) == 1
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(store.get_label_uri(series, "final"))), array)
    for one in ("../../etc/passwd", "1..2", "", "1" * 65):
        with pytest.raises(LabelError, match="no series UID"):
            store.get_image_uri(one)
    with pytest.raises(LabelError, match=r"has no series 1\.2\.3"):
        store.get_image_uri("1.2.3")
    with pytest.raises(LabelError, match="does not answer as a DICOMweb server"):
        dicomweb_datastore("http://127.0.0.1:9/dicom-web")


def test_a_segmentation_of_another_program_comes_on_the_grid_of_the_image(
    store: DicomWebStudies, series: str, tmp_path: Path
) -> None:
    """Only marked slices, a value without the one below it, and a name in an alphabet beyond Latin-1."""
    array = mask_of(store, series, tmp_path / "mask.nii.gz")
    folder = store._series_folder(series)
    for file in folder.glob("*.dcm"):
        source = pydicom.dcmread(file)
        source.SpecificCharacterSet, source.PatientName = "ISO_IR 192", "Żółć^Łukasz"
        source.save_as(file)
    only = sitk.ReadImage(str(tmp_path / "mask.nii.gz")) == 2
    sitk.WriteImage(only * 3, str(tmp_path / "three.nii.gz"))
    write_segmentation(tmp_path / "three.nii.gz", folder, {3: "Milz"}, tmp_path / "seg.dcm")
    header = pydicom.dcmread(tmp_path / "seg.dcm")
    assert str(header.PatientName) == "Żółć^Łukasz"
    assert header.NumberOfFrames == 2
    assert [one.SegmentNumber for one in header.SegmentSequence] == [1, 2, 3]
    names = read_segmentation(tmp_path / "seg.dcm", store.get_image_uri(series), tmp_path / "back.nii.gz")
    assert names["Milz"] == 3
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "back.nii.gz"))), (array == 2) * 3)
    with pytest.raises(DataError, match="cannot be read as a DICOM segmentation"):
        read_segmentation(next(folder.glob("*.dcm")), store.get_image_uri(series), tmp_path / "no.nii.gz")


def test_the_server_infers_saves_and_lists_over_dicomweb(
    label_app: Path, archive: Archive, series: str, phantom: Phantom, tmp_path: Path
) -> None:
    """The whole way by REST, with the downloads of DICOM tools made impossible."""
    environment = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache"), "https_proxy": "http://127.0.0.1:9"}
    environment["HTTPS_PROXY"] = environment["https_proxy"]
    with label_server(label_app, archive.url, **environment) as server:
        answer = requests.post(f"{server.url}/infer/{LIVER}?image={series}&output=image", timeout=120)
        assert answer.status_code == 200, server.log()[-3000:]
        (tmp_path / "mask.nii.gz").write_bytes(answer.content)
        mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
        assert mask.GetSize() == phantom.hu.shape[::-1]
        array = np.zeros(phantom.hu.shape, np.uint8)
        array[2:5, 8:20, 8:20] = 1
        drawn = sitk.GetImageFromArray(array)
        drawn.CopyInformation(mask)
        sitk.WriteImage(drawn, str(tmp_path / "drawn.nii.gz"))
        with (tmp_path / "drawn.nii.gz").open("rb") as file:
            saved = requests.put(
                f"{server.url}/datastore/label?image={series}&tag=final",
                files={"label": ("drawn.nii.gz", file)},
                data={"params": json.dumps({"label_info": [{"name": "liver", "idx": 1}]})},
                timeout=60,
            )
        assert saved.status_code == 200, server.log()[-3000:]
        assert len(archive.series("SEG")) == 1
        assert requests.get(f"{server.url}/info/", timeout=60).json()["datastore"]["completed"] == 1
        for path in (f"infer/{LIVER}?image=..%2F..%2Fetc", f"infer/{LIVER}?image=1.2.3"):
            refused = requests.post(f"{server.url}/{path}", timeout=60)
            assert refused.status_code == 404, refused.text
        assert not (label_app / "bin" / "itkimage2segimage").exists()
    for one in archive.series("SEG"):
        archive.remove(one)
