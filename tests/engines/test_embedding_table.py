"""Inference of the encoder bundles: a folder or a store becomes a table of embeddings with ids, whole or not at all."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from monai.bundle import ConfigWorkflow
from safetensors.torch import save_file

from monai_ssl_transfer.data.ct.ingest import ingest_ct
from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
from monai_ssl_transfer.data.folder_store import stored_images
from monai_ssl_transfer.data.phantoms.ct_scan import PhantomOptions, make_ct_phantom
from monai_ssl_transfer.data.phantoms.ct_writers import write_dicom_series, write_nifti
from monai_ssl_transfer.data.phantoms.endoscopy_videos import write_mp4
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.engines.embedding.embed import EmbeddingTable, WholeSliceDataset, read_embeddings
from monai_ssl_transfer.engines.embedding.encoder_settings import FrameNormaliser, encoder_settings
from monai_ssl_transfer.errors import DataError, TrainingError, UserError, WeightsError, user_error_of
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.views.windows import channel_windows
from monai_ssl_transfer.weights import EncoderCard, save_encoder

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32


def infer(bundle: str, folder: Path, out: Path, weights: Path, **override: Any) -> Any:
    """Embed as `python -m monai.bundle run` does; give back the table."""
    file = str(ROOT / "bundles" / bundle / "configs" / "inference.json")
    fixed = {"num_workers": 0, "batch_size": 4, "device": torch.device("cpu"), "encoder_weights": str(weights)}
    given = fixed | {"dataset_dir": str(folder), "output_dir": str(out)} | override
    run = ConfigWorkflow(file, logging_file=False, workflow_type="infer", **given)
    run.initialize()
    try:
        assert run.check_properties() == []
        run.run()
    except RuntimeError as error:  # MONAI wraps the cause, which the bundle's hook shows to the user
        raise user_error_of(error) or error from error
    run.finalize()
    return read_embeddings(out)


def encoder_file(folder: Path, name: str, channels: str, **card: Any) -> Path:
    torch.manual_seed(1)
    windows = tuple((window.level, window.width) for window in channel_windows(channels))
    facts = {"channels": channels, "windows": windows, "image_size": SIDE} | card
    encoder = build_encoder(name, 1 if channels == "single" else 3, SIDE, pooling=facts.get("pooling", "token"))
    in_channels = 1 if channels == "single" else 3
    return save_encoder(encoder, folder, EncoderCard(name, in_channels=in_channels, **facts))


def refused(out: Path) -> dict[str, tuple[str, str]]:
    with (out / "embeddings_refused.csv").open() as file:
        return {row["file"]: (row["status"], row["code"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two DICOM series in one folder, a NIfTI volume in another, a label map and a damaged file."""
    folder = tmp_path_factory.mktemp("ct") / "scans"
    phantoms = [
        make_ct_phantom(seed, PhantomOptions(size=24, slices=count)) for seed, count in ((1, 5), (2, 4), (3, 6))
    ]
    write_dicom_series(folder / "a" / "first", phantoms[0], patient=0)
    write_dicom_series(folder / "a" / "second", phantoms[1], patient=1, series_number=2)
    for file in (folder / "a" / "second").iterdir():
        shutil.move(file, folder / "a" / "first" / f"other_{file.name}")
    (folder / "b").mkdir()
    write_nifti(folder / "b" / "volume.nii.gz", phantoms[2].hu, phantoms[2], "RAS")
    write_nifti(folder / "b" / "label.nii.gz", phantoms[2].labels, phantoms[2])
    broken = next((folder / "a" / "first").glob("IM*"))
    (folder / "a" / "broken.dcm").write_bytes(broken.read_bytes()[:-100])
    (folder / "notes.txt").write_text("not a scan")
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of photographs, the last of which is a copy of the first, and a video."""
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("endoscopy") / "frames", np.random.default_rng(0)
    for number in range(5):
        path = folder / f"p{number // 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)).save(path)
    shutil.copy(folder / "p0" / "0.png", folder / "p1" / "copy.png")
    (folder / "p1" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    write_mp4(folder / "video.mp4", rng.integers(0, 255, (11, 32, 48, 3)).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def ct_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_file(tmp_path_factory.mktemp("ct_encoder"), "resnet18", "windows")


@pytest.fixture(scope="module")
def ct_table(scans: Path, ct_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("ct_table")
    return infer("ct_ssl_pretraining", scans, out, ct_encoder), out


def test_a_folder_of_scans(ct_table: tuple[Any, Path], scans: Path, ct_encoder: Path) -> None:
    """Each slice has the embedding of what an ingest stores of it, its file, its place and nobody's name."""
    (ids, vectors, card, facts), out = ct_table
    rows = ids.to_pylist()
    assert vectors.shape == (15, 512) and vectors.dtype == np.float32
    assert card is not None and card.architecture == "resnet18"
    assert (facts["source"], facts["image_size"], facts["channels"]) == ("folder", SIDE, "windows")
    assert len({row["id"] for row in rows}) == 15
    assert {row["series"] for row in rows} == {"a/first#1", "a/first#2", "b/volume.nii.gz"}
    for row in rows:
        assert (scans / row["file"]).is_file()
        inside = f"#{row['slice']}" if row["file"].endswith(".gz") else ""
        assert row["id"] == row["file"] + inside
    assert len({row["group"] for row in rows}) == 3
    for series in {row["series"] for row in rows}:
        own = [row for row in rows if row["series"] == series]
        assert [row["slice"] for row in own] == list(range(len(own)))
        assert np.all(np.diff([row["position_mm"] for row in own]) > 0)
    statuses = refused(out)
    assert {file: status for file, (status, _) in statuses.items()} == {
        "a/broken.dcm": "refused",
        "b/label.nii.gz": "refused",
        "notes.txt": "ignored",
    }


def test_a_folder_and_its_store_give_the_same(
    ct_table: tuple[Any, Path], scans: Path, ct_encoder: Path, tmp_path: Path
) -> None:
    ingest_ct(scans, tmp_path / "store", workers=1, progress=False)
    table = infer("ct_ssl_pretraining", tmp_path / "store", tmp_path / "out", ct_encoder)
    (ids, vectors, _, facts), _ = ct_table
    np.testing.assert_array_equal(table.vectors, vectors)
    for name in ("slice", "position_mm", "body_part", "store_row"):
        assert table.ids[name].to_pylist() == ids[name].to_pylist(), name
    assert table.facts["content_hash"] == SliceStore(tmp_path / "store").content_hash != facts["content_hash"]
    assert table.ids["file"].null_count == 15
    assert set(table.ids["series"].to_pylist()) == {
        SliceStore(tmp_path / "store").series(i).series_key for i in range(3)
    }
    assert not (tmp_path / "out" / "embeddings_refused.csv").exists()


def test_volumes_are_means_of_all_their_slices(
    ct_table: tuple[Any, Path], scans: Path, ct_encoder: Path, tmp_path: Path
) -> None:
    table = infer("ct_ssl_pretraining", scans, tmp_path, ct_encoder, level="volume")
    (ids, vectors, _, facts), _ = ct_table
    series = np.asarray(ids["series"].to_pylist())
    assert table.ids["slices"].to_pylist() == [int((series == name).sum()) for name in table.ids["id"].to_pylist()]
    expected = np.stack([vectors[series == name].mean(axis=0) for name in table.ids["id"].to_pylist()])
    np.testing.assert_allclose(table.vectors, expected, rtol=1e-5)
    assert table.facts["content_hash"] == facts["content_hash"]  # the salt of a temporary store does not enter it


def test_photographs_and_videos(frames: Path, tmp_path: Path) -> None:
    """Every photograph has a row, however alike; a copy is reported; a frame of a video is found by its number."""
    weights = encoder_file(tmp_path / "e", "vit_tiny", "rgb", pooling="mean", mean=(0.5,) * 3, std=(0.5,) * 3)
    out = tmp_path / "out"
    ids, vectors, card, _ = infer("endoscopy_ssl_pretraining", frames, out, weights, every=5)
    rows = {row["id"]: row for row in ids.to_pylist()}
    pictures = {f"p{n // 3}/{n}.png" for n in range(5)}
    assert rows.keys() == pictures | {"video.mp4#0", "video.mp4#5", "video.mp4#10"}
    assert rows["video.mp4#5"]["frame"] == 5 and rows["video.mp4#5"]["seconds"] == pytest.approx(0.2, abs=0.01)
    assert rows["p0/0.png"]["frame"] is None and rows["p0/0.png"]["group"] == rows["p0/2.png"]["group"]
    assert len({row["group"] for row in rows.values()}) == 3
    assert refused(out) == {"p1/broken.jpg": ("refused", "truncated"), "p1/copy.png": ("duplicate", "copy")}
    assert vectors.shape == (8, 192) and card is not None and card.pooling == "mean"

    ingest_frames(frames, tmp_path / "store", workers=1, every=5, duplicate_threshold=None, progress=False)
    stored = infer("endoscopy_ssl_pretraining", tmp_path / "store", tmp_path / "stored", weights)
    np.testing.assert_array_equal(stored.vectors, vectors)
    # the card's own normalisation, which is not ImageNet's
    dataset = WholeSliceDataset(tmp_path / "store", "rgb", SIDE, to_channels=FrameNormaliser((0.5,) * 3, (0.5,) * 3))
    encoder = encoder_settings(weights, "resnet50", "rgb", 224, "token")
    assert (encoder.encoder_name, encoder.pooling, encoder.image_size) == ("vit_tiny", "mean", SIDE)
    torch.manual_seed(1)
    network = build_encoder("vit_tiny", 3, SIDE, pooling="mean").eval()
    with torch.no_grad():
        expected = network(torch.stack([dataset[i]["image"] for i in range(8)])).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_an_encoder_of_photographs_without_a_card_embeds_scans(scans: Path, tmp_path: Path) -> None:
    """torchvision's ResNet with its classifier: one setting is enough; the three windows take the place of colours."""
    from torchvision.models import resnet18

    save_file(resnet18().state_dict(), tmp_path / "photographs.safetensors")
    table = infer("ct_ssl_pretraining", scans, tmp_path, tmp_path / "photographs.safetensors", image_size=SIDE)
    assert table.vectors.shape == (15, 512)
    assert table.facts["channels"] == "windows" and table.card is not None


def test_contradictions_are_refused(scans: Path, frames: Path, ct_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pretrained on channels windows, not neighbours"):
        infer("ct_ssl_pretraining", scans / "b", tmp_path, ct_encoder, channels="neighbours")
    with pytest.raises(WeightsError, match="resnet18"):
        infer("ct_ssl_pretraining", scans / "b", tmp_path, ct_encoder, encoder_name="resnet50")
    with pytest.raises(WeightsError, match="HU windows"):
        other = encoder_file(tmp_path / "e", "resnet18", "windows", windows=((0.0, 100.0),) * 3)
        infer("ct_ssl_pretraining", scans / "b", tmp_path, other)
    with pytest.raises(WeightsError, match="does not exist"):
        infer("ct_ssl_pretraining", scans / "b", tmp_path, tmp_path / "nowhere.safetensors")
    with pytest.raises(DataError, match="made with its own labels_csv"):
        ingest_ct(scans / "b", tmp_path / "store", workers=1, progress=False)
        infer("ct_ssl_pretraining", tmp_path / "store", tmp_path, ct_encoder, labels_csv="regions.csv")
    with pytest.raises(DataError, match="holds hu pixels, not rgb"):
        infer("endoscopy_ssl_pretraining", tmp_path / "store", tmp_path, ct_encoder)
    with pytest.raises(TrainingError, match="level 'patient'"):
        infer("ct_ssl_pretraining", tmp_path / "store", tmp_path, ct_encoder, level="patient")
    assert not (tmp_path / "embeddings.parquet").exists()


def test_a_folder_without_a_readable_file_is_an_error(frames: Path, ct_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing in .* could be read, see .*embeddings_refused\.csv"):
        infer("ct_ssl_pretraining", frames, tmp_path, ct_encoder)
    assert len(refused(tmp_path)) == 8
    assert not (tmp_path / "embeddings.parquet").exists()


def test_an_unfinished_table_has_no_name(scans: Path, ct_encoder: Path, tmp_path: Path) -> None:
    """A run that stops in the middle leaves the table of the run before it."""
    images = stored_images(scans, "hu", tmp_path / "temporary", tmp_path / "refused.csv")
    assert images.store.path == tmp_path / "temporary"
    (tmp_path / "embeddings.parquet").write_text("the one before")
    settings = encoder_settings(ct_encoder, "resnet50", "windows", 224, "token")
    table = EmbeddingTable(images, tmp_path, settings, "windows", SIDE)

    class Engine:
        class state:  # noqa: N801
            output = {"pred": torch.ones(2, 8)}  # noqa: RUF012
            batch = {"index": torch.arange(2)}  # noqa: RUF012

    table.write(Engine)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="2 of 15 images"):
        table.close(Engine)  # type: ignore[arg-type]
    assert (tmp_path / "embeddings.parquet").read_text() == "the one before"
    Engine.state.output = {"pred": torch.full((2, 8), torch.nan)}
    with pytest.raises(DataError, match="not finite"):
        table.write(Engine)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cannot be read"):
        read_embeddings(tmp_path)


def test_rows_are_written_in_groups(
    scans: Path, ct_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ct_table: tuple[Any, Path]
) -> None:
    monkeypatch.setattr("monai_ssl_transfer.engines.embedding.table.ROW_GROUP", 6)
    table = infer("ct_ssl_pretraining", scans, tmp_path, ct_encoder)
    assert pq.ParquetFile(tmp_path / "embeddings.parquet").num_row_groups == 2  # of 8 and 7 rows: batches of 4
    np.testing.assert_array_equal(table.vectors, ct_table[0].vectors)
    field = pq.read_schema(tmp_path / "embeddings.parquet").field("embedding")
    assert str(field.type).startswith("fixed_size_list<") and field.type.list_size == 512
