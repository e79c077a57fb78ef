"""Embeddings of a real datastore: made once, kept by content, updated when images come, change or go."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import resnet18

pytest.importorskip("monailabel", reason="needs the label extra")

from monai_ssl_transfer.data.ct.nifti import open_nifti
from monai_ssl_transfer.engines.embedding import cache
from monai_ssl_transfer.errors import DataError, WeightsError
from monai_ssl_transfer.label.datastore import SafeDatastore
from monai_ssl_transfer.label.embedding_encoder import ImageEncoder, find_encoder
from monai_ssl_transfer.label.embeddings import DatastoreEmbeddings
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import EncoderCard, save_encoder

SECONDS = 60


def small_encoder(folder: Path, image_size: int = 32) -> Path:
    torch.manual_seed(0)
    return save_encoder(build_encoder("resnet18"), folder, EncoderCard("resnet18", channels="", image_size=image_size))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def studies(studies_frames: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(studies_frames, tmp_path / "studies"))


def finished(embeddings: DatastoreEmbeddings) -> DatastoreEmbeddings:
    embeddings.start()
    assert embeddings.wait(SECONDS)
    return embeddings


def test_every_image_gets_the_vector_of_the_encoder(studies: Path, encoder: Path, tmp_path: Path) -> None:
    store = SafeDatastore(str(studies))
    found = finished(DatastoreEmbeddings(store, encoder, tmp_path / "embeddings"))
    ids = sorted(store.list_images())
    vectors = found.vectors(ids)
    assert vectors.shape == (6, 512)
    assert vectors.dtype == np.float32
    embed = ImageEncoder(encoder)
    assert np.allclose(vectors[3], embed(store.get_image_uri(ids[3])), atol=1e-5)
    assert found.status() | {"encoder": ""} == {"done": 6, "total": 6, "failed": {}, "encoder": "", "problem": ""}
    found.stop()


def test_images_that_come_change_or_go_are_followed(studies: Path, encoder: Path, tmp_path: Path) -> None:
    store = SafeDatastore(str(studies))
    found = finished(DatastoreEmbeddings(store, encoder, tmp_path / "embeddings"))
    before = found.vectors(["frame_0", "frame_1", "frame_2"])
    shutil.copyfile(studies / "frame_2.jpg", studies / "new.jpg")
    shutil.copyfile(studies / "frame_1.jpg", studies / "frame_0.jpg")
    (studies / "frame_5.png").unlink()
    (studies / "broken.png").write_bytes(b"no picture")
    store.refresh()
    found.update()
    assert found.wait(SECONDS)
    assert np.allclose(found.vectors(["new"])[0], before[2])
    assert np.allclose(found.vectors(["frame_0"])[0], before[1])
    assert not np.allclose(before[0], before[1])
    with pytest.raises(DataError, match=r"broken\.png"):
        found.vectors(["frame_1", "broken"])
    status = found.status()
    assert (status["done"], status["total"], list(status["failed"])) == (6, 7, ["broken"])
    assert found.embedded(["frame_5", "broken", "new"]) == ["new"]
    found.stop()


def test_a_restart_embeds_nothing_again_and_reads_no_image(
    studies: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SafeDatastore(str(studies))
    first = finished(DatastoreEmbeddings(store, encoder, tmp_path / "embeddings"))
    expected = first.vectors(store.list_images())
    first.stop()
    made = list((tmp_path / "embeddings").glob(f"*/*{cache._SUFFIX}"))
    read: list[str] = []
    monkeypatch.setattr(ImageEncoder, "__call__", lambda _self, file: read.append(file))
    again = finished(DatastoreEmbeddings(store, encoder, tmp_path / "embeddings"))
    assert np.array_equal(again.vectors(store.list_images()), expected)
    assert read == []
    assert list((tmp_path / "embeddings").glob(f"*/*{cache._SUFFIX}")) == made
    again.stop()


def test_another_encoder_gives_other_vectors_beside_the_earlier_ones(
    studies: Path, encoder: Path, tmp_path: Path
) -> None:
    store = SafeDatastore(str(studies))
    finished(DatastoreEmbeddings(store, encoder, tmp_path / "embeddings")).stop()
    torch.manual_seed(1)
    other = save_encoder(build_encoder("resnet18"), tmp_path / "other", EncoderCard("resnet18", image_size=32))
    found = finished(DatastoreEmbeddings(store, other, tmp_path / "embeddings"))
    expected = ImageEncoder(other)(store.get_image_uri("frame_0"))
    assert np.allclose(found.vectors(["frame_0"])[0], expected, atol=1e-5)
    found.stop()


def test_a_volume_is_the_mean_over_its_slices(studies_ct: Path, encoder: Path) -> None:
    file = studies_ct / "volume-0.nii.gz"
    embed = ImageEncoder(encoder)
    stack = open_nifti(file)
    with torch.no_grad():
        slices = [
            embed._encoder(embed._prepared(torch.from_numpy(plane.astype(np.float32))[None, None], False))[0].cpu()
            for plane in stack.hu()
        ]
    assert np.allclose(embed(file), torch.stack(slices).mean(0).numpy(), atol=1e-4)


def test_without_an_encoder_the_reason_is_told_and_the_first_model_helps(studies: Path, tmp_path: Path) -> None:
    store = SafeDatastore(str(studies))
    app = tmp_path / "app"
    (app / "model").mkdir(parents=True)
    found = finished(DatastoreEmbeddings(store, None, app / "embeddings"))
    assert "no encoder" in found.why_none()
    model = app / "model" / "image_classification" / "models" / "model.pt"
    model.parent.mkdir(parents=True)
    network = resnet18(spatial_dims=2, n_input_channels=3, num_classes=3, shortcut_type="B", bias_downsample=False)
    torch.save(network.state_dict(), model)
    found.update()
    assert found.wait(SECONDS)
    assert found.status()["done"] == 6, found.why_none()
    kept = found.status()["encoder"]
    assert Path(kept).parent == app / "embeddings" / "encoder"
    found.stop()
    # a training changes the model, and the vectors stay comparable
    model.write_bytes(b"another")
    assert find_encoder(None, app / "model", app / "embeddings" / "encoder", True) == Path(kept)


def test_the_encoder_named_or_in_a_bundle_is_taken(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no encoder"):
        find_encoder(None, tmp_path, tmp_path / "kept", True)
    volumes, frames = tmp_path / "a_ct", tmp_path / "b_frames"
    for folder, config in ((volumes, '{"channels": "windows"}'), (frames, "{}")):
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "inference.json").write_text(config)
        small_encoder(folder / "encoder")
    assert find_encoder(None, tmp_path, tmp_path / "kept", True).parents[1] == frames
    assert find_encoder(None, tmp_path, tmp_path / "kept", False).parents[1] == volumes
    assert find_encoder(tmp_path / "mine", tmp_path, tmp_path / "kept", True) == tmp_path / "mine"
