"""From a bundle and an encoder to labelled embeddings, one probe's files, and a ranking."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.cli.probe import _PROTOCOLS
from monai_ssl_transfer.data.endoscopy.hyperkvasir import class_names
from monai_ssl_transfer.data.phantoms.image_layouts import write_chest_xray14
from monai_ssl_transfer.data.store import SeriesEntry
from monai_ssl_transfer.data.store_writer import SliceStoreWriter, encode_slice
from monai_ssl_transfer.errors import DataError, WeightsError
from monai_ssl_transfer.evaluation.probes import PROBES
from monai_ssl_transfer.evaluation.probes.knn import KNNProbe
from monai_ssl_transfer.evaluation.probes.protocol import ProbeOutcome
from monai_ssl_transfer.evaluation.probes.task import (
    EncoderSource,
    TaskSource,
    encoder_source,
    refuse_unknown_settings,
)
from monai_ssl_transfer.evaluation.probes.task_options import probe_with
from monai_ssl_transfer.evaluation.probes.task_rank import mean_ranks, rank_encoders
from monai_ssl_transfer.evaluation.probes.task_run import run_probe
from monai_ssl_transfer.evaluation.probes.task_vectors import task_vectors
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import EncoderCard, save_encoder

ROOT = Path(__file__).resolve().parents[3]
FINDINGS = "endoscopy_finding_classification"
SMALL = {"image_size": 32, "duplicate_threshold": None, "batch_size": 16}
SCRATCH = EncoderSource("scratch", None, "vit_tiny", 3)


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HyperKvasir's landmarks: ten noisy photographs of 32 pixels per class, each class with a tint."""
    folder, rng = tmp_path_factory.mktemp("landmarks"), np.random.default_rng(0)
    for number, name in enumerate(class_names("landmarks")):
        place = folder / "labeled-images" / "lower-gi-tract" / "anatomical-landmarks" / name
        place.mkdir(parents=True)
        for one in range(10):
            tint = np.array([40 + 30 * number, 200 - 25 * number, 60 + 100 * (number % 2)])
            picture = np.clip(tint + rng.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(place / f"{name}-{one}.png")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty patients with two slices each; a region is a disc of its own size and HU."""
    folder, rng = tmp_path_factory.mktemp("store") / "store", np.random.default_rng(0)
    grid = np.hypot(*np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5))
    with SliceStoreWriter(folder) as writer:
        for patient in range(30):
            region = patient % 6
            hu = np.where(grid < 5 + 2 * region, -50 + 40 * region, -1000) + rng.normal(0, 10, (2, 32, 32))
            places = (f"{patient:032x}", f"{100 + patient:032x}")
            entry = SeriesEntry(*places, "dicom", 5.0, False, tuple(np.eye(4).ravel()))
            slices = [
                encode_slice(one.astype(np.int16), position=5.0 * z, spacing=(2.0, 2.0), body_part=region)
                for z, one in enumerate(hu)
            ]
            writer.append(entry, slices)
    return folder


def finding_task(folder: Path, **settings: Any) -> TaskSource:
    return TaskSource(FINDINGS, (folder,), (), SMALL | settings)


def region_task(folder: Path, **settings: Any) -> TaskSource:
    return TaskSource("ct_body_region_classification", (folder,), (), {"image_size": 32, "batch_size": 16} | settings)


def saved(folder: Path, architecture: str = "vit_tiny", **card: Any) -> EncoderSource:
    torch.manual_seed(1)
    encoder = build_encoder(architecture, card.get("in_channels", 3), card.setdefault("image_size", 32))
    return EncoderSource("saved", save_encoder(encoder, folder, EncoderCard(architecture, **card)))


@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_the_cases_are_those_of_a_training_with_the_same_settings(landmarks: Path, tmp_path: Path, fraction: float):
    found = task_vectors(finding_task(landmarks, split_seed=5), SCRATCH, None, fraction=fraction, seed=2)
    training = ConfigParser()
    training.read_config(str(ROOT / "bundles" / FINDINGS / "configs" / "train.json"))
    settings = {**SMALL, "dataset_dir": str(landmarks), "output_dir": str(tmp_path)}
    training.update({**settings, "label_fraction": fraction, "seed": 2, "split_seed": 5})
    for part, cases in training.get_parsed_content("cases").items():
        assert found[part].cases == tuple(case["name"] for case in cases)
        assert found[part].targets.tolist() == [case["class"] for case in cases]
    assert (len(found["train"]) < 36) == (fraction < 1)


def test_an_embedding_is_that_of_the_image_as_the_card_wants_it(landmarks: Path, tmp_path: Path):
    source = saved(tmp_path, channels="rgb", mean=(0.5,) * 3, std=(0.2,) * 3)
    found = task_vectors(finding_task(landmarks), source, None)["test"]
    torch.manual_seed(1)
    encoder = build_encoder("vit_tiny", image_size=32).eval()
    file = next(landmarks.rglob(f"{found.cases[3]}.png"))
    pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = encoder((pixels - 0.5) / 0.2)[0]
    torch.testing.assert_close(found.vectors[3], expected, atol=1e-4, rtol=1e-4)
    assert found.blocks is not None
    assert found.blocks.shape == (12, 4, 2, 192)


def test_images_elsewhere_and_other_fractions_are_not_embedded_again(landmarks: Path, tmp_path: Path):
    cache, copy = tmp_path / "cache", tmp_path / "copy"
    first = task_vectors(finding_task(landmarks), SCRATCH, cache)
    files = sorted(cache.rglob("*.safetensors"))
    shutil.copytree(landmarks, copy)
    again = task_vectors(finding_task(copy), SCRATCH, cache, fraction=0.5)
    assert sorted(cache.rglob("*.safetensors")) == files
    assert torch.equal(first["test"].vectors, again["test"].vectors)
    task_vectors(finding_task(landmarks), replace(SCRATCH, seed=4), cache, fraction=0.5)
    assert len(list(cache.rglob("identity.json"))) == 2
    task_vectors(finding_task(landmarks, image_size=48), SCRATCH, cache, fraction=0.5)
    assert len(list(cache.rglob("identity.json"))) == 3


def test_slices_are_judged_on_the_patients_that_the_bundle_holds_out(store: Path, tmp_path: Path):
    found = task_vectors(region_task(store), SCRATCH, None, seed=1)
    training = ConfigParser()
    training.read_config(str(ROOT / "bundles/ct_body_region_classification/configs/train.json"))
    training.update({"dataset_dir": str(store), "output_dir": str(tmp_path), "seed": 1})
    slices = training.get_parsed_content("slices")
    for part in ("train", "validation", "test"):
        assert found[part].targets.tolist() == slices[part][:, 1].tolist()
    groups = [set(found[part].groups) for part in ("train", "validation", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    training.update({"output_dir": str(tmp_path / "two"), "test_fraction": 0})
    two, without = (
        training.get_parsed_content("slices"),
        task_vectors(region_task(store, test_fraction=0), SCRATCH, None, seed=1),
    )
    assert without["test"].targets.tolist() == two["validation"][:, 1].tolist()
    assert len(without["train"]) + len(without["validation"]) == len(two["train"])
    volumes = task_vectors(region_task(store), SCRATCH, None, seed=1, average="volume")["train"]
    own = [row for row, case in enumerate(found["train"].cases) if case.startswith(volumes.cases[2])]
    assert len(own) == 2
    torch.testing.assert_close(volumes.vectors[2], found["train"].vectors[own].mean(dim=0))


def test_the_card_chooses_the_channels_of_ct_unless_the_user_does(store: Path, tmp_path: Path):
    source = saved(tmp_path, in_channels=1, channels="single", windows=((0.0, 2000.0),))
    assert task_vectors(region_task(store), source, None)["test"].vectors.shape[1] == 192
    with pytest.raises(WeightsError, match=r"1 channels.*'windows' have 3"):
        task_vectors(region_task(store, channels="windows"), source, None)
    other = saved(tmp_path / "other", channels="windows", windows=((40.0, 300.0),) * 3)
    with pytest.raises(WeightsError, match="HU windows"):
        task_vectors(region_task(store), other, None)


def test_an_encoder_of_one_channel_sees_photographs_in_grey(landmarks: Path, tmp_path: Path):
    found = task_vectors(finding_task(landmarks), saved(tmp_path, in_channels=1), None)["test"]
    assert found.vectors.shape == (12, 192)


@dataclass(frozen=True)
class ByTint:
    """A probe that knows the answer of all cases but the first."""

    name: str = "by_tint"

    def predict(self, train: Any, validation: Any, test: Any, seed: int) -> ProbeOutcome:
        right = torch.nn.functional.one_hot(test.targets, len(test.class_names)).float()
        right[0] = right[0].roll(1)
        known = torch.nn.functional.one_hot(test.targets, len(test.class_names)).float()
        return ProbeOutcome(right, draws=(right, known))


def test_a_probe_writes_the_files_of_the_bundles_evaluation(landmarks: Path, tmp_path: Path):
    written = run_probe(finding_task(landmarks), SCRATCH, ByTint(), tmp_path, cache=None)
    record = json.loads(written.read_text())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["accuracy"] == pytest.approx(11 / 12)
    assert summary["balanced_accuracy"] == pytest.approx(1 - 0.5 / 6)
    assert summary["support"]["train"]["cecum"] == 6
    assert [one["balanced_accuracy"] for one in record["draws"]] == [pytest.approx(1 - 0.5 / 6), 1.0]
    drawn = [json.loads((tmp_path / "draws" / n / "summary.json").read_text())["accuracy"] for n in "01"]
    assert drawn == [pytest.approx(11 / 12), 1.0]
    assert record["cases"] == {"train": 36, "validation": 12, "test": 12}
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [row["truth"] == row["predicted"] for row in rows].count(False) == 1
    assert (landmarks / rows[0]["file"]).is_file()
    judged = list(csv.DictReader((tmp_path / "judged.csv").open()))
    assert sum(float(row["gained"]) for row in judged) == 11
    assert json.loads((tmp_path / "frames.json").read_text())["test"] == sorted(row["case"] for row in judged)


def test_the_overlay_of_a_bundle_runs_the_same_probe(landmarks: Path, tmp_path: Path):
    configs = [ROOT / "bundles" / FINDINGS / "configs" / "train.json", ROOT / "configs/probes/knn.json"]
    overrides = {**SMALL, "dataset_dir": str(landmarks), "output_dir": str(tmp_path / "bundle"), "num_workers": 0}
    overrides |= {"embedding_cache": str(tmp_path / "cache"), "seed": 3, "device": torch.device("cpu")}
    run = ConfigWorkflow([str(one) for one in configs], logging_file=False, workflow_type="train", **overrides)
    run.initialize()
    run.run()
    run_probe(finding_task(landmarks), SCRATCH, KNNProbe(), tmp_path / "python", 3, cache=tmp_path / "cache")
    for name in ("predictions.csv", "metrics.csv", "summary.json", "judged.csv", "frames.json"):
        assert (tmp_path / "bundle" / name).read_bytes() == (tmp_path / "python" / name).read_bytes()
    one, other = (json.loads((tmp_path / run / "probe.json").read_text()) for run in ("bundle", "python"))
    assert (one["chosen"], one["tried"]) == (other["chosen"], other["tried"])
    assert json.loads((tmp_path / "bundle" / "summary.json").read_text())["accuracy"] > 0.5


def test_several_findings_are_probed_by_patient(tmp_path: Path):
    data = write_chest_xray14(tmp_path / "data", patients=140, images_per_patient=1, size=32)
    overlay = Path("configs/tasks/nih_chest_xray14.json")
    task = TaskSource("image_classification", (data,), (overlay,), {"image_size": 32, "batch_size": 64})
    written = run_probe(task, SCRATCH, probe_with("ml_knn", {"neighbours": [5]}), tmp_path / "out", cache=None)
    record = json.loads(written.read_text())
    assert record["cases"]["test"] == 28
    judged = list(csv.DictReader((tmp_path / "out" / "judged.csv").open()))
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").open()))
    assert len(rows) == 28
    assert len(judged) == sum(len(row["truth"].split("|")) for row in rows if row["truth"])
    assert all(row["case"].startswith(f"{int(row['group'].removeprefix('patient-')):08d}") for row in judged)
    assert {"auroc", "average_precision"} <= json.loads((tmp_path / "out" / "summary.json").read_text()).keys()


def test_what_cannot_be_probed_is_a_sentence(landmarks: Path, tmp_path: Path):
    cases: list[tuple[TaskSource, EncoderSource, type[Exception], str]] = [
        (TaskSource("endoscopy_polyp_segmentation", (landmarks,)), SCRATCH, DataError, "no classes.*fine-tune"),
        (TaskSource("nothing", (landmarks,)), SCRATCH, DataError, "choose one of ct_body_region_classification"),
        (finding_task(landmarks, label_fraction=0.1), SCRATCH, DataError, "--fraction"),
        (finding_task(landmarks, test_fraction=0), SCRATCH, DataError, "no case for test"),
        (finding_task(landmarks, image_size="large"), SCRATCH, DataError, "image_size is 'large'.*whole number"),
        (TaskSource(FINDINGS, (landmarks,), (Path("no.json"),)), SCRATCH, DataError, "no.json"),
        (finding_task(tmp_path / "gone"), SCRATCH, DataError, "is not a folder"),
        (finding_task(landmarks), EncoderSource("d", None, "vit_small_dinov2"), WeightsError, "image_size=28"),
        (finding_task(landmarks), EncoderSource("f", tmp_path / "none.pth"), WeightsError, "does not exist"),
    ]
    for task, encoder, kind, words in cases:
        with pytest.raises(kind, match=words):
            task_vectors(task, encoder, None)
    with pytest.raises(DataError, match="no two of the cases are slices of one volume"):
        task_vectors(finding_task(landmarks), SCRATCH, None, average="volume")


def test_a_misspelt_setting_is_a_sentence():
    refuse_unknown_settings(finding_task(Path("data"), **{"network_def#dropout_prob": 0.1, "network_def::new": 1}))
    with pytest.raises(DataError, match="no setting 'image_sze': did you mean image_size"):
        refuse_unknown_settings(finding_task(Path("data"), image_sze=96))
    with pytest.raises(DataError, match=r"no setting 'qqq#size': its configs/train\.json"):
        refuse_unknown_settings(finding_task(Path("data"), **{"qqq#size": 96}))


def test_a_damaged_photograph_is_named(landmarks: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(landmarks, copy)
    file = next(copy.rglob("cecum-4.png"))
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cecum-4\.png"):
        task_vectors(finding_task(copy), SCRATCH, None)


def test_encoders_are_ordered_by_their_mean_rank(landmarks: Path, tmp_path: Path, capsys: Any):
    scores = {
        "a": {"knn": 0.9, "logme": 1.0, "h_score": 3.0},
        "b": {"knn": 0.8, "logme": 1.0, "h_score": 4.0},
        "c": {"knn": 0.8, "logme": 0.5, "h_score": 1.0},
    }
    assert mean_ranks(scores) == {"a": 1.5, "b": 1.667, "c": 2.833}
    words = ["--set", "image_size=32", "duplicate_threshold=null", "--cache", str(tmp_path / "cache")]
    task = ["--bundle", FINDINGS, "--data", str(landmarks), "--out", str(tmp_path / "out"), *words]
    assert main(["rank", "--encoders", "scratch:resnet18", "tiny=scratch:vit_tiny", *task]) == 0
    ranking = json.loads((tmp_path / "out" / "ranking.json").read_text())
    assert set(ranking["scores"]) == {"scratch:resnet18", "tiny"}
    assert list(ranking["mean_rank"].values()) == sorted(ranking["mean_rank"].values())
    assert capsys.readouterr().out.startswith((tmp_path / "out" / "ranking.md").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "ranking.csv").open()))
    assert [row["encoder"] for row in rows] == list(ranking["scores"])
    assert float(rows[0]["knn"]) == next(iter(ranking["scores"].values()))["knn"]
    with pytest.raises(DataError, match="two encoders are called 'scratch'"):
        rank_encoders(finding_task(landmarks), [SCRATCH, SCRATCH], None)


def test_a_command_ends_with_a_sentence(landmarks: Path, tmp_path: Path, capsys: Any):
    task = ["--bundle", "ct_liver_segmentation", "--data", str(landmarks), "--out", str(tmp_path)]
    assert main(["probe", "--encoder", "scratch:resnet18", *task]) == 2
    assert "gives its images no classes" in capsys.readouterr().err


def test_names_of_encoders(tmp_path: Path):
    assert encoder_source("runs/dino/encoder.safetensors").name == "dino"
    assert encoder_source("weights/moco.pth") == EncoderSource("moco", Path("weights/moco.pth"))
    assert encoder_source("mine=weights/moco.pth").name == "mine"
    assert encoder_source("scratch:vit_tiny") == EncoderSource("scratch:vit_tiny", None, "vit_tiny")
    with pytest.raises(DataError, match="scratch: with one of resnet18"):
        encoder_source("scratch:alexnet")
    with pytest.raises(DataError, match="names no file"):
        EncoderSource("x")


def test_every_overlay_is_its_probe_with_its_published_settings():
    assert set(_PROTOCOLS) == set(PROBES)
    shared = set()
    for name in PROBES:
        parser = ConfigParser()
        file = ROOT / "configs" / "probes" / f"{name}.json"
        parser.read_config(str(file))
        assert parser.get_parsed_content("probe") == PROBES[name]()
        content = json.loads(file.read_text())
        blocks = ("+imports", "architecture", "average", "embedding_cache", "initialize", "run")
        shared.add(json.dumps([content[one] for one in blocks]))
    assert len(shared) == 1


def test_settings_of_a_probe_are_checked():
    assert probe_with("knn", {"neighbours": [3]}) == KNNProbe(neighbours=(3,))
    assert probe_with("few_shot", {"probe": "knn", "shots": 2}).probe == KNNProbe()
    with pytest.raises(DataError, match=r"no setting 'k'.*neighbours"):
        probe_with("knn", {"k": 3})
    with pytest.raises(DataError, match="no probe 'svm'"):
        probe_with("svm")
    for given, wanted in (
        ({"neighbours": "abc"}, 'neighbours of the probe knn is "abc": give a list, each of them a whole number'),
        ({"neighbours": 20}, "give a list"),
        ({"per_class": 1.5}, "give a whole number or null"),
        ({"refit": "yes"}, "give true or false"),
    ):
        with pytest.raises(DataError, match=wanted):
            probe_with("knn", given)
    assert probe_with("knn", {"temperature": 1, "per_class": None}) == KNNProbe(temperature=1)
