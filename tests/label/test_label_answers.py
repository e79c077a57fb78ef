"""A real server asked by MONAI Label's client and over REST: what it serves, and what it says to bad requests."""

from __future__ import annotations

import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests
from monai.bundle import run
from PIL import Image

pytest.importorskip("monailabel", reason="needs the label extra")

from tiny_label import CLASSES, DETECTION, IMAGES, LIVER, POLYPS, LabelServer


def post(server: LabelServer, path: str, **more: Any) -> requests.Response:
    return requests.post(server.url + path, timeout=120, **more)


def put_label(server: LabelServer, query: str, name: str, content: bytes) -> requests.Response:
    return requests.put(f"{server.url}/datastore/label?{query}", files={"label": (name, content)}, timeout=120)


def png(size: tuple[int, int], mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def stats(server: LabelServer) -> dict[str, Any]:
    return dict(requests.get(f"{server.url}/datastore/", timeout=60).json())


def own_masks(bundle: Path, image: Path, out: Path) -> Path:
    """What the bundle writes by itself, without MONAI Label."""
    run(config_file=str(bundle / "configs" / "inference.json"), dataset_dir=str(image), output_dir=str(out))
    (mask,) = (one for one in out.rglob("*") if one.is_file())
    return mask


def test_info_says_what_is_served(frames_server: LabelServer) -> None:
    info = frames_server.client.info()
    assert set(info["models"]) == {POLYPS, LIVER, IMAGES}
    assert list(info["without_weights"]) == [DETECTION]
    assert "train it first" in info["without_weights"][DETECTION]
    assert info["models"][POLYPS]["dimension"] == 2
    assert info["models"][LIVER]["dimension"] == 3
    assert info["models"][LIVER]["config"]["model_filename"] == ["model.pt"]
    assert {"random", "first"} < set(info["strategies"])
    assert info["datastore"]["total"] == 6


def test_masks_of_photographs_are_bytes_in_the_size_of_the_photograph(
    frames_server: LabelServer, label_app: Path, tmp_path: Path
) -> None:
    for name in ("frame_0", "frame_5"):  # a JPEG and a PNG: a JPEG mask would have invented classes
        answer = post(frames_server, f"/infer/{POLYPS}?image={name}&output=image")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        mask = Image.open(io.BytesIO(answer.content))
        assert (mask.mode, mask.size) == ("L", (80, 64))
        assert set(np.unique(mask)) <= {0, 1}
    expected = own_masks(label_app / "model" / POLYPS, frames_server.studies / "frame_5.png", tmp_path / "own")
    assert np.array_equal(np.asarray(mask) > 0, np.asarray(Image.open(expected)) > 0)


def test_classes_have_names_and_scores(frames_server: LabelServer) -> None:
    answer = post(frames_server, f"/infer/{IMAGES}?image=frame_1&output=json").json()
    assert [one["label"] for one in answer["prediction"]] == CLASSES
    assert sum(one["score"] for one in answer["prediction"]) == pytest.approx(1, abs=1e-4)


def test_masks_of_volumes_lie_exactly_on_their_volume(
    volumes_server: LabelServer, label_app: Path, tmp_path: Path
) -> None:
    for name in ("volume-0", "volume-1", "volume-2"):  # LAS, LPS and RAS
        answer = post(volumes_server, f"/infer/{LIVER}?image={name}&output=image")
        assert answer.status_code == 200, answer.text
        file = tmp_path / f"{name}.nii.gz"
        file.write_bytes(answer.content)
        mask, image = nibabel.load(file), nibabel.load(volumes_server.studies / f"{name}.nii.gz")
        assert mask.shape == image.shape
        assert mask.get_data_dtype() == np.uint8
        assert np.array_equal(mask.affine, image.affine)
    expected = own_masks(label_app / "model" / LIVER, volumes_server.studies / "volume-2.nii.gz", tmp_path / "own")
    assert np.array_equal(np.asarray(mask.dataobj), np.asarray(nibabel.load(expected).dataobj))


def test_the_client_gets_a_mask_saves_it_and_finds_it_again(volumes_server: LabelServer, tmp_path: Path) -> None:
    client = volumes_server.client
    file, said = client.infer(LIVER, "volume-1", {})
    assert said["label_names"] == {"liver": 1, "tumour": 2}
    client.save_label("volume-1", file, tag="final", params={"client_id": "a"})
    saved = volumes_server.studies / "labels" / "final" / "volume-1.nii.gz"
    assert np.array_equal(nibabel.load(saved).affine, nibabel.load(file).affine)
    assert stats(volumes_server)["label_tags"] == {"final": 1}
    assert client.next_sample("first", {})["id"] == "volume-0"
    shifted = tmp_path / "shifted.nii.gz"
    moved = nibabel.load(file)
    nibabel.save(nibabel.Nifti1Image(np.asarray(moved.dataobj), moved.affine + np.eye(4)[:, [3, 3, 3, 0]] * 3), shifted)
    with pytest.raises(Exception, match="elsewhere in space"):
        client.save_label("volume-1", str(shifted), tag="final", params={})
    assert np.array_equal(nibabel.load(saved).affine, moved.affine)


def test_batch_inference_names_the_image_that_is_damaged(frames_server: LabelServer) -> None:
    server = frames_server
    whole = (server.studies / "frame_5.png").read_bytes()
    (server.studies / "broken.png").write_bytes(whole[: len(whole) // 2])
    _until(lambda: stats(server)["total"] == 7)
    try:
        started = post(server, f"/batch/infer/{POLYPS}?images=all", json={"max_workers": 1, "label_tag": "original"})
        assert started.status_code == 200, started.text
        _until(lambda: _task(server)["status"] != "SUBMITTED")
        assert post(server, f"/batch/infer/{POLYPS}", json={}).status_code == 429
        _until(lambda: _task(server)["status"] not in ("SUBMITTED", "RUNNING"))
        task = _task(server)
        assert task["status"] == "DONE"
        assert any("6 of 7 images done; broken: image broken cannot be" in line for line in task["details"])
        assert len(list((server.studies / "labels" / "original").glob("frame_*.png"))) == 6
        assert stats(server)["label_tags"]["original"] == 6
    finally:
        (server.studies / "broken.png").unlink()
        _until(lambda: stats(server)["total"] == 6)


def _task(server: LabelServer) -> dict[str, Any]:
    return dict(requests.get(f"{server.url}/batch/infer", timeout=30).json())


def _until(reached: Any, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.3)


INFER = [
    ("/infer/nonsense?image=frame_0", {}, 404, "there is no model 'nonsense'"),
    (f"/infer/{POLYPS}?image=nothing", {}, 404, "there is no image 'nothing'"),
    (f"/infer/{POLYPS}?image=../masks/frame_0", {}, 404, "there is no image"),
    (f"/infer/{POLYPS}?image=frame_0", {"image": "/etc/hostname"}, 404, "there is no image '/etc/hostname'"),
    (f"/infer/{POLYPS}", {}, 400, "Neither Image nor File"),
    (f"/infer/{POLYPS}?session_id=../x", {}, 404, "there is no image"),
    (f"/infer/{DETECTION}?image=frame_0", {}, 409, "no trained weights yet"),
    (f"/infer/{LIVER}?image=frame_0", {}, 415, f"is a photograph, but {LIVER} takes volumes"),
    (f"/infer/{POLYPS}?image=frame_0", {"model_filename": "../../other.pt"}, 400, "has one model, model.pt"),
    (f"/infer/{POLYPS}?image=frame_0", {"result_extension": "/../../x.png"}, 400, "leave result_extension out"),
    (f"/infer/{POLYPS}?image=frame_0", {"result_dtype": "nonsense"}, 400, "leave result_dtype out"),
    (f"/infer/{POLYPS}?image=frame_0", {"device": "nonsense"}, 400, "there is no device"),
    (f"/infer/{POLYPS}?image=frame_0", {"logging": "nonsense"}, 400, "there is no log level"),
    (f"/infer/{POLYPS}?image=frame_0", {"save_label": True, "label_tag": "../up"}, 400, "tag '../up' cannot be"),
    (f"/infer/wsi/{POLYPS}?image=frame_0", {}, 404, "whole-slide"),
    ("/batch/infer/nonsense", {}, 404, "there is no model 'nonsense'"),
    ("/train/nonsense", {}, 404, "there is no model 'nonsense'"),
    ("/activelearning/nonsense", {}, 404, "there is no strategy 'nonsense'"),
]


@pytest.mark.parametrize(("path", "params", "status", "said"), INFER)
def test_bad_requests_get_a_sentence(
    frames_server: LabelServer, path: str, params: dict[str, Any], status: int, said: str
) -> None:
    form = path.startswith("/infer/") and "/wsi/" not in path
    answer = post(frames_server, path, **({"data": {"params": json.dumps(params)}} if form else {"json": {}}))
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


UPLOADS = [
    ("x.txt", b"hello", POLYPS, 415, "is of no type that is read here"),
    ("x.png", b"no picture", POLYPS, 422, "the file is damaged"),
    ("x.nii.gz", b"no volume", LIVER, 422, "the file is damaged"),
    ("x.png", png((8, 8)), LIVER, 415, "is a photograph"),
]


@pytest.mark.parametrize(("name", "content", "model", "status", "said"), UPLOADS)
def test_bad_images_get_a_sentence(
    frames_server: LabelServer, name: str, content: bytes, model: str, status: int, said: str
) -> None:
    answer = post(frames_server, f"/infer/{model}", files={"file": (name, content)})
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    place = f"{frames_server.url}/datastore/image"
    added = requests.put(place, files={"file": (name, content)}, timeout=60)
    if said == "is a photograph":  # a whole one: the datastore takes it, whatever the model
        assert added.json() == {"image": "x"}
        assert requests.delete(place, params={"id": "x"}, timeout=60).status_code == 200
    else:
        assert added.status_code in (415, 422), added.text


def test_a_volume_is_refused_by_a_bundle_of_photographs_and_so_is_half_a_file(volumes_server: LabelServer) -> None:
    answer = post(volumes_server, f"/infer/{POLYPS}?image=volume-0")
    assert answer.status_code == 415
    assert f"is a volume, but {POLYPS} takes photographs" in answer.json()["detail"]
    half = (volumes_server.studies / "volume-0.nii.gz").read_bytes()
    cut = post(volumes_server, f"/infer/{LIVER}", files={"file": ("x.nii.gz", half[: len(half) // 2])})
    assert cut.status_code == 422, cut.text
    flat = io.BytesIO()
    image = nibabel.Nifti1Image(np.zeros((8, 8), np.int16), np.eye(4))
    flat.write(image.to_bytes())
    assert post(volumes_server, f"/infer/{LIVER}", files={"file": ("x.nii", flat.getvalue())}).status_code == 415


LABELS = [
    ("image=nothing", "x.png", png((80, 64)), 404, "there is no image 'nothing'"),
    ("image=../frame_3", "x.png", png((80, 64)), 404, "there is no image"),
    ("image=frame_3&tag=../up", "x.png", png((80, 64)), 400, "tag '../up' cannot be"),
    ("image=frame_3&tag=.hidden", "x.png", png((80, 64)), 400, "cannot be the name of a file"),
    ("image=frame_3", "x.png", png((64, 80)), 422, "is 64 x 80 and its image 80 x 64"),
    ("image=frame_3", "x.png", png((80, 64), "RGB"), 422, "has several channels"),
    ("image=frame_3", "x.png", png((80, 64))[:50], 422, "the file is damaged"),
    ("image=frame_3", "x.jpg", png((80, 64)), 415, "save the label as PNG"),
    ("image=frame_3", "x.txt", b"hello", 415, "is of no type"),
    ("image=frame_3", "x.json", b"[1]", 422, "holds no JSON object"),
    ("image=frame_3", "x.json", b'{"label": "left"}', 409, "would be lost"),
]


@pytest.mark.parametrize(("query", "name", "content", "status", "said"), LABELS)
def test_a_bad_label_leaves_the_good_one(
    frames_server: LabelServer, query: str, name: str, content: bytes, status: int, said: str
) -> None:
    saved = frames_server.studies / "labels" / "final" / "frame_3.png"
    good = png((80, 64))
    if not saved.is_file():
        assert put_label(frames_server, "image=frame_3", "mask.png", good).status_code == 200
    answer = put_label(frames_server, query, name, content)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert saved.read_bytes() == good
    fetched = requests.get(f"{frames_server.url}/datastore/label?label=frame_3&tag=final", timeout=30)
    assert fetched.content == good


def test_images_come_and_go_without_leaving_the_folder(frames_server: LabelServer) -> None:
    server, picture = frames_server, (frames_server.studies / "frame_0.jpg").read_bytes()

    def add(image: str, name: str = "x.JPEG") -> requests.Response:
        where = f"{server.url}/datastore/image"
        return requests.put(where, params={"image": image}, files={"file": (name, picture)}, timeout=60)

    for name in ("../out", "/tmp/out", "a/b", ".hidden", "..", "a\\b", "x" * 300):
        assert add(name).status_code == 400, name
    assert add("frame_0").status_code == 409
    assert add("", "../../up.JPEG").json() == {"image": "up"}
    assert (server.studies / "up.JPEG").read_bytes() == picture
    assert not list(server.studies.parent.glob("*up*"))
    assert post(server, f"/infer/{POLYPS}?image=up&output=json").status_code == 200
    remove = f"{server.url}/datastore/image"
    assert requests.delete(remove, params={"id": "../frames/frame_0"}, timeout=30).status_code == 404
    assert requests.delete(remove, params={"id": "up"}, timeout=30).status_code == 200
    assert not (server.studies / "up.JPEG").exists()
    assert len(list(server.studies.glob("frame_*"))) == 6


def test_sessions_keep_uploads_apart_and_unpack_nothing_but_zips(frames_server: LabelServer) -> None:
    server, picture = frames_server, frames_server.studies / "frame_5.png"
    session = server.client.create_session(str(picture))
    assert post(server, f"/infer/{POLYPS}?session_id={session['session_id']}&output=json").status_code == 200
    archive = shutil.make_archive(str(server.log_file.parent / "frames"), "tar", server.studies, "frame_5.png")
    with Path(archive).open("rb") as file:
        answer = requests.put(
            f"{server.url}/session/", params={"uncompress": True}, files={"files": ("frames.tar", file)}, timeout=60
        )
    assert answer.status_code == 415, answer.text


def test_weights_that_do_not_fit_are_never_asked(frames_server: LabelServer) -> None:
    model = frames_server.app / "model" / POLYPS / "models" / "model.pt"
    kept, other = model.read_bytes(), frames_server.app / "model" / IMAGES / "models" / "model.pt"
    ask = f"/infer/{POLYPS}?image=frame_0&output=json"
    try:
        for content, said in ((other.read_bytes(), "does not fit"), (kept[: len(kept) // 2], "cannot be read")):
            model.write_bytes(content)
            answer = post(frames_server, ask)
            assert 400 <= answer.status_code < 500, answer.text
            assert said in answer.json()["detail"]
        model.unlink()
        assert post(frames_server, ask).status_code == 409
        assert POLYPS in frames_server.client.info()["without_weights"]
        uploaded = requests.put(f"{frames_server.url}/model/{POLYPS}", files={"file": ("m.pt", kept)}, timeout=60)
        assert uploaded.status_code == 403
        assert not model.exists()
    finally:
        model.write_bytes(kept)
    assert post(frames_server, ask).status_code == 200


def test_the_server_survived_all_of_this(frames_server: LabelServer, volumes_server: LabelServer) -> None:
    for server in (frames_server, volumes_server):
        assert server.process.poll() is None
        assert stats(server)["total"] in (3, 6)
