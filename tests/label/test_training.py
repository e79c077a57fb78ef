"""Labels fine-tune a bundle: where it starts, what is measured, and when the trained model is put into use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("monailabel", reason="needs the label extra")

from monailabel.datastore.local import LocalDatastore
from PIL import Image
from tiny_label import IMAGES, LIVER, POLYPS

from monai_ssl_transfer.errors import DataError, LabelError, user_error_of
from monai_ssl_transfer.file_hash import file_sha256
from monai_ssl_transfer.label.training import BundleTraining
from monai_ssl_transfer.label.training_progress import only_training

PHOTOGRAPHS = ["*.png", "*.jpg", "*.json"]


@pytest.fixture
def app(label_app: Path, tmp_path: Path) -> Path:
    """The test's own copy of the app folder."""
    return Path(shutil.copytree(label_app, tmp_path / "app"))


def labelled(studies: Path, folder: Path, labels: int, extensions: list[str]) -> LocalDatastore:
    """A stock datastore over a copy of the studies, the first images with their mask as final label."""
    shutil.copytree(studies, folder)
    final = folder / "labels" / "final"
    final.mkdir(parents=True)
    for mask in sorted((studies.parent / "masks").iterdir())[:labels]:
        shutil.copyfile(mask, final / mask.name)
    return LocalDatastore(str(folder), extensions=extensions)


def asked(**settings: Any) -> dict[str, Any]:
    return {"device": "cpu", "max_epochs": 1, "val_split": 0.34, **settings}


def settings_of(bundle: Path, **values: Any) -> None:
    """Change settings in the bundle's training."""
    file = bundle / "configs" / "train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_workers": 0, **values}))


def all_foreground(model: Path) -> None:
    """Make a network answer that every pixel is foreground, which overlaps every mask."""
    state = torch.load(model, weights_only=True)
    bias = next(name for name in reversed(state) if name.endswith("bias"))
    state[bias] = torch.tensor([-1e4, 1e4])
    torch.save(state, model)


def test_photographs_without_a_model_then_a_worse_and_an_equal_one(
    app: Path, studies_frames: Path, tmp_path: Path
) -> None:
    bundle = app / "model" / POLYPS
    model = bundle / "models" / "model.pt"
    store = labelled(studies_frames, tmp_path / "studies", 5, PHOTOGRAPHS)
    model.unlink()
    settings_of(bundle, learning_rate=0.0, val_interval=2)
    training = BundleTraining(str(bundle), {})
    assert training.stats() == {}
    first = training(asked(max_epochs=4), store)
    assert first["replaced"] and first["model_in_use"] is None and first["started_from"] == "scratch"
    assert (first["training"], first["validation"]) == (3, 2)
    told = training.stats()
    assert (told["state"], told["epoch"], told["total_epochs"]) == ("done", 4, 4)
    assert [one["epoch"] for one in told["curve"]] == [1, 2, 3, 4]
    assert [one.get("metric") for one in told["curve"]] == [None, "mean_dice", None, "mean_dice"]
    assert told["best_metric"] == first["candidate"] and "version 1" in told["message"]

    all_foreground(model)
    in_use = file_sha256(model)
    second = training(asked(pretrained=False), store)
    assert second["candidate"] < second["model_in_use"]
    assert not second["replaced"] and file_sha256(model) == in_use
    assert training.stats()["best_metric"] == second["model_in_use"]
    assert training.versions.trainings() == [first, second]

    third = training(asked(), store)
    assert third["started_from"] == "the model that was there" and third["replaced"]
    assert third["candidate"] == third["model_in_use"] == second["model_in_use"]
    assert [one.origin for one in training.versions.listed()] == ["trained", "found", "trained"]
    assert sorted(one.name for one in model.parent.glob("*.pt")) == ["model.pt"]


def test_classes_start_from_the_encoder(app: Path, studies_frames: Path, tmp_path: Path) -> None:
    bundle = app / "model" / IMAGES
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    encoder = tmp_path / "ssl_encoder.pt"
    torch.save({name: value * 0.9 for name, value in state.items() if not name.startswith("fc.")}, encoder)
    store = labelled(studies_frames, tmp_path / "studies", 0, PHOTOGRAPHS)
    for number in range(6):
        label = tmp_path / "studies" / "labels" / "final" / f"frame_{number}.json"
        label.write_text(json.dumps({"label": ["left", "middle", "right"][number % 3]}))
    store = LocalDatastore(str(tmp_path / "studies"), extensions=PHOTOGRAPHS)
    settings_of(bundle, learning_rate=0.0)
    training = BundleTraining(str(bundle), {}, encoder)
    record = training(asked(pretrained=False), store)
    assert record["metric"] == "macro_f1" and record["started_from"] == "the SSL encoder ssl_encoder.pt"
    loaded = json.loads((training.runs / record["run"] / "encoder_load.json").read_text())
    assert loaded["file"].endswith("ssl_encoder.pt")


def test_volumes_go_on_from_the_model_in_use(app: Path, studies_ct: Path, tmp_path: Path) -> None:
    bundle = app / "model" / LIVER
    store = labelled(studies_ct, tmp_path / "studies", 3, ["*.nii.gz"])
    settings_of(bundle, slices_per_epoch=4, learning_rate=0.0)
    training = BundleTraining(str(bundle), {})
    record = training(asked(), store)
    assert record["started_from"] == "the model that was there"
    assert record["candidate"] == pytest.approx(record["model_in_use"], abs=0.05)
    assert not (training.runs / record["run"] / "cache").exists()


def test_a_training_that_fails_leaves_its_sentence_and_the_model(
    app: Path, studies_frames: Path, tmp_path: Path
) -> None:
    bundle = app / "model" / POLYPS
    before = file_sha256(bundle / "models" / "model.pt")
    settings_of(bundle)
    store = labelled(studies_frames, tmp_path / "studies", 4, PHOTOGRAPHS)
    for mask in (tmp_path / "studies" / "labels" / "final").iterdir():
        Image.new("L", (9, 9)).save(mask)
    training = BundleTraining(str(bundle), {})
    with pytest.raises(RuntimeError) as caught:  # MONAI's, about the configuration; the sentence is its cause
        training(asked(), store)
    assert "frame_" in str(user_error_of(caught.value))
    told = training.stats()
    assert told["state"] == "failed" and "frame_" in told["message"] and "9 x 9" in told["message"]
    assert file_sha256(bundle / "models" / "model.pt") == before
    assert training.versions.trainings() == []


def test_what_cannot_be_trained_is_refused_before_a_process_is_started(
    app: Path, studies_frames: Path, tmp_path: Path
) -> None:
    training = BundleTraining(str(app / "model" / POLYPS), {})
    one = labelled(studies_frames, tmp_path / "one", 1, PHOTOGRAPHS)
    with pytest.raises(DataError, match="one image is labelled"):
        training.check(asked(), one)
    enough = labelled(studies_frames, tmp_path / "enough", 3, PHOTOGRAPHS)
    training.check(asked(), enough)
    with only_training(training.runs, POLYPS):
        with pytest.raises(LabelError, match=f"a training of {POLYPS} is running") as caught:
            training.check(asked(), enough)
        assert caught.value.status == 429
        with pytest.raises(LabelError, match="is running"):
            training(asked(), enough)
    training.check(asked(), enough)
    assert set(training.info()["config"]) >= {"device", "max_epochs", "val_split", "pretrained", "multi_gpu", "gpus"}
