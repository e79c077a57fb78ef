"""Every downstream bundle, exported and unmodified, in the monaibundle app that comes with MONAI Label."""

from __future__ import annotations

import io
import json
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import pytest
from PIL import Image
from stock_bundles import OVERLAYS, exported

pytest.importorskip("monailabel", reason="MONAI Label is not installed: pip install 'monai-ssl-transfer[label]'")
from fastapi.testclient import TestClient  # comes with MONAI Label
from requests_toolbelt import MultipartDecoder

from monai_ssl_transfer.data.endoscopy.frames import read_mask
from monai_ssl_transfer.data.phantoms.ct_scan import PhantomOptions
from monai_ssl_transfer.data.phantoms.ct_writers import write_lits_layout

SIZE = (50, 72)
VOLUMES = ("ct_liver_segmentation", "volume_segmentation", "ct_body_region_classification")
Client = Callable[[Path, Path, Sequence[str]], TestClient]


def photograph(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The stock app in this process, on an app folder, studies and bundles."""
    from monailabel.app import app as server
    from monailabel.config import settings
    from monailabel.interfaces.utils.app import clear_cache

    data = Path(sysconfig.get_paths()["purelib"])
    main = next(data.glob("monailabel-*.data/data/monailabel/sample-apps/monaibundle/main.py"))
    before = {name: getattr(settings, name) for name in type(settings).model_fields}

    def client(app: Path, studies: Path, names: Sequence[str]) -> TestClient:
        shutil.copy(main, app / "main.py")
        settings.MONAI_LABEL_APP_DIR, settings.MONAI_LABEL_STUDIES = str(app), str(studies)
        settings.MONAI_LABEL_SESSION_PATH = str(app / "sessions")
        settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD = False
        settings.MONAI_LABEL_DATASTORE_FILE_EXT = ["*.nii.gz", "*.png", "*.jpg", "*.json"]
        offline = {"zoo_source": "local", "sam2": "false", "auto_update_scoring": "false"}
        settings.MONAI_LABEL_APP_CONF = {"models": ",".join(names), **offline}
        clear_cache()
        return TestClient(server)

    yield client
    clear_cache()
    for name, value in before.items():
        setattr(settings, name, value)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    for name in OVERLAYS:
        exported(name, folder)
    return folder


@pytest.fixture(scope="module")
def lits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lits")
    write_lits_layout(folder, 2, PhantomOptions(size=48, slices=8, slice_spacing=(10.0, 12.0), tumour_share=1.0))
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory, lits: Path) -> Path:
    """A PNG, a JPEG, and a CT that lies askew and is stored from left to right."""
    folder = tmp_path_factory.mktemp("studies")
    photograph(0).save(folder / "frame.png")
    photograph(1).save(folder / "photo.jpg")
    image = nibabel.load(next(lits.glob("volume-*")))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]]
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine), folder / "scan.nii.gz")
    return folder


@pytest.fixture(scope="module")
def client(served: Client, app: Path, studies: Path) -> TestClient:
    return served(app, studies, list(OVERLAYS))


def infer(client: TestClient, name: str, image: str) -> tuple[dict[str, Any], bytes]:
    """What the server answers: JSON, and the file if there is one."""
    params = {"params": json.dumps({"device": "cpu"})}
    answer = client.post(f"/infer/{name}?image={image}&output=all", data=params)
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("multipart"):
        return answer.json(), b""
    text, file = MultipartDecoder(answer.content, answer.headers["content-type"]).parts
    return json.loads(text.text), file.content


@pytest.mark.parametrize("name", [one for one in OVERLAYS if one.endswith("_classification")])
def test_a_classification_answers_with_all_labels_and_scores(client: TestClient, name: str) -> None:
    found, file = infer(client, name, "scan" if name in VOLUMES else "photo")
    scores = [one["score"] for one in found["prediction"]]
    assert not file and sum(scores) == pytest.approx(1, abs=1e-5) and len(set(scores)) == len(scores)
    assert {one["label"]: one["idx"] for one in found["prediction"]} == found["label_names"]
    if name == "image_classification":
        assert list(found["label_names"]) == ["adenoma", "normal", "ulcer"]


def own_masks(app: Path, name: str, data: Path, out: Path) -> Path:
    """Masks of the exported bundle's own inference."""
    config = str(app / "model" / name / "configs" / "inference.json")
    settings = {"dataset_dir": str(data), "output_dir": str(out), "device": "cpu"}
    monai.bundle.run(config_file=config, **settings)
    return out


@pytest.mark.parametrize("name", [one for one in OVERLAYS if one.endswith("_segmentation") and one not in VOLUMES])
def test_a_mask_of_a_photograph_is_that_of_our_own_inference(
    client: TestClient, app: Path, studies: Path, tmp_path: Path, name: str
) -> None:
    for file in ("frame.png", "photo.jpg"):
        shutil.copy(studies / file, tmp_path / file)
    own = own_masks(app, name, tmp_path, tmp_path / "out")
    for image in ("frame", "photo"):
        _, content = infer(client, name, image)
        picture = Image.open(io.BytesIO(content))
        mask = np.asarray(picture)
        assert picture.format == "PNG" and mask.dtype == np.uint8 and mask.shape == SIZE
        assert set(np.unique(mask)) == {0, 1}
        np.testing.assert_array_equal(mask > 0, read_mask(own / f"{image}_mask.png"))


@pytest.mark.parametrize("name", ["ct_liver_segmentation", "volume_segmentation"])
def test_a_mask_of_a_volume_is_that_of_our_own_inference(
    client: TestClient, app: Path, studies: Path, tmp_path: Path, name: str
) -> None:
    own = nibabel.load(own_masks(app, name, studies / "scan.nii.gz", tmp_path) / "scan_seg.nii.gz")
    found, content = infer(client, name, "scan")
    (tmp_path / "answer.nii.gz").write_bytes(content)
    mask = nibabel.load(tmp_path / "answer.nii.gz")
    assert mask.get_data_dtype() == np.uint8 and len(np.unique(mask.dataobj)) > 1
    np.testing.assert_array_equal(mask.dataobj, own.dataobj)
    np.testing.assert_allclose(mask.affine, nibabel.load(studies / "scan.nii.gz").affine, atol=1e-5)
    assert found["label_names"] == ({"liver": 1, "tumour": 2} if name.startswith("ct") else {"spleen": 1, "kidney": 2})


def test_boxes_are_given_by_centre_and_size_in_pixels(client: TestClient) -> None:
    found, content = infer(client, "endoscopy_polyp_detection", "frame")
    boxes = np.asarray(found["box"])
    assert boxes.shape[1] == 6 and len(boxes) == len(found["label"]) and set(found["label"]) == {0}
    low, high = boxes[:, :2] + 0.5 - boxes[:, 3:5] / 2, boxes[:, :2] + 0.5 + boxes[:, 3:5] / 2
    assert (low >= -1e-3).all() and (high <= np.asarray(SIZE[::-1]) + 1e-3).all() and (high[:, 0] > SIZE[0]).any()
    assert len(json.loads(content)["markups"]) == len(boxes) and found["label_names"] == {"polyp": 0}


def test_depth_is_a_picture_of_16_bits(client: TestClient) -> None:
    _, content = infer(client, "endoscopy_depth_estimation", "photo")
    depth = np.asarray(Image.open(io.BytesIO(content)))
    assert depth.shape == SIZE and depth.dtype == np.uint16 and (depth.min(), depth.max()) == (0, 65535)


def label_photographs(studies: Path, extension: str, write: Callable[[Path, int], Any]) -> None:
    (studies / "labels" / "final").mkdir(parents=True)
    for number in range(4):
        photograph(number).save(studies / f"f{number}.png")
        write(studies / "labels" / "final" / f"f{number}{extension}", number)


def draw_mask(file: Path, number: int) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[10:30, 20 + number : 50] = (1, 255)[number % 2]  # annotation programs write the one or the other
    Image.fromarray(mask).save(file)


def choose_class(file: Path, number: int) -> None:
    file.write_text(json.dumps({"label": ("Normal", "ulcer")[number // 2]}))


def label_volumes(studies: Path, lits: Path) -> None:
    (studies / "labels" / "final").mkdir(parents=True)
    for number, file in enumerate(sorted(lits.glob("volume-*"))):
        shutil.copy(file, studies / f"c{number}.nii.gz")
        label = file.with_name(file.name.replace("volume", "segmentation"))
        shutil.copy(label, studies / "labels" / "final" / f"c{number}.nii.gz")


@pytest.mark.parametrize(
    ("name", "share", "run_id"),  # an empty run_id is what 3D Slicer sends
    [("endoscopy_polyp_segmentation", 0.5, ""), ("ct_liver_segmentation", 0.5, "run"), ("image_classification", 0, "")],
)
def test_training_replaces_the_model_that_is_served(
    served: Client, app: Path, lits: Path, tmp_path: Path, name: str, share: float, run_id: str
) -> None:
    shutil.copytree(app / "model" / name, tmp_path / "model" / name)
    if name in VOLUMES:
        label_volumes(tmp_path / "studies", lits)
    elif name == "image_classification":
        label_photographs(tmp_path / "studies", ".json", choose_class)
    else:
        label_photographs(tmp_path / "studies", ".png", draw_mask)
    client = served(tmp_path, tmp_path / "studies", [name])
    model = tmp_path / "model" / name / "models" / "model.pt"
    before = model.read_bytes()
    wanted = {"max_epochs": 1, "device": "cpu", "val_split": share, "run_id": run_id}
    answer = client.post(f"/train/{name}?run_sync=true", json=wanted)
    assert answer.status_code == 200, answer.text
    assert model.read_bytes() != before and [one.name for one in model.parent.glob("*.pt")] == ["model.pt"]
    infer(client, name, "c0" if name in VOLUMES else "f0")
