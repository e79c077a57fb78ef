"""Uncertainty against sums written out, of networks with and without dropout, and over real bundles and a server."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("monailabel", reason="needs the label extra")

import requests
from tiny_label import DETECTION, IMAGES, LIVER, POLYPS, LabelServer

from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.label.datastore import SafeDatastore
from monai_ssl_transfer.label.inference import StrictBundleInference
from monai_ssl_transfer.label.scoring import UncertaintyScoring, can_be_scored, make_scoring, score_key
from monai_ssl_transfer.label.uncertainty import RATE, DisagreeingNetwork, mutual_information


def slow_entropy(probabilities: list[float]) -> float:
    return -sum(one * math.log(one) for one in probabilities if one > 0)


def test_mutual_information_is_entropy_of_the_mean_less_mean_entropy() -> None:
    torch.manual_seed(0)
    samples = torch.randn(4, 2, 3, 5).softmax(dim=2)
    found = mutual_information(samples)
    for image in range(2):
        for pixel in range(5):
            drawn = [[float(samples[t, image, c, pixel]) for c in range(3)] for t in range(4)]
            mean = [sum(one[c] for one in drawn) / 4 for c in range(3)]
            expected = slow_entropy(mean) - sum(map(slow_entropy, drawn)) / 4
            assert float(found[image, pixel]) == pytest.approx(expected, abs=1e-5)


def test_agreement_costs_nothing_however_unsure_and_contradiction_one_bit() -> None:
    unsure = torch.full((5, 1, 2), 0.5)
    assert float(mutual_information(unsure)) == 0
    contradiction = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert float(mutual_information(contradiction)) == pytest.approx(math.log(2), abs=1e-6)
    findings = torch.tensor([[[1.0, 0.0, 0.3]], [[0.0, 0.0, 0.3]]])
    assert float(mutual_information(findings, exclusive=False)) == pytest.approx(math.log(2), abs=1e-5)


def test_a_linear_layer_is_fed_with_dropped_inputs_and_answers_as_before() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    images = torch.randn(4, 6)
    measured = DisagreeingNetwork(network, samples=3, seed=5)
    assert torch.equal(measured(images), network(images))
    generator = torch.Generator().manual_seed(5)
    hidden = network[:2](images)
    drawn = []
    for _ in range(3):
        kept = torch.rand(hidden.shape, generator=generator) >= RATE
        drawn.append(network[2](hidden * kept / (1 - RATE)).softmax(dim=1))
    assert measured.score == pytest.approx(float(mutual_information(torch.stack(drawn)).mean()), rel=1e-4)
    assert measured.score > 0
    again = DisagreeingNetwork(network, samples=3, seed=5)
    again(images)
    assert again.score == measured.score


def test_own_dropout_is_used_and_a_network_without_a_place_is_refused() -> None:
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.Conv2d(8, 2, 1))
    measured = DisagreeingNetwork(own)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(measured(images), own.eval()(images))
    assert measured.score > 0
    assert not own[1]._forward_hooks
    with pytest.raises(TrainingError, match="choose images with ssl_diverse"):
        DisagreeingNetwork(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout(0.0)))


@pytest.fixture(scope="module")
def bundles(label_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundles, whose models a test may change."""
    return Path(shutil.copytree(label_app / "model", tmp_path_factory.mktemp("scored") / "model"))


def scoring(bundles: Path, name: str) -> UncertaintyScoring:
    return UncertaintyScoring(StrictBundleInference(str(bundles / name), {}), samples=2)


@pytest.mark.parametrize(("name", "kind"), [(POLYPS, "frames"), (IMAGES, "frames"), (LIVER, "ct")])
def test_unlabelled_images_are_scored_once_per_model(
    bundles: Path, studies_frames: Path, studies_ct: Path, tmp_path: Path, name: str, kind: str
) -> None:
    source = studies_frames if kind == "frames" else studies_ct
    store = SafeDatastore(shutil.copytree(source, tmp_path / "studies"))
    labelled, *others = sorted(store.list_images())
    mask = next((source.parent / "masks").glob(f"{labelled}.*"))
    store.save_label(labelled, str(mask), "final", {})
    method = scoring(bundles, name)
    assert method.is_stale(store)
    found = method({}, store)
    assert (found["executed"], found["skipped"], found["failed"]) == (len(others), 0, {})
    scores = [store.get_image_info(one)[score_key(name)] for one in others]
    assert min(scores) > 0
    assert score_key(name) not in store.get_image_info(labelled)
    assert method.score(store.get_image_uri(others[0])) == pytest.approx(scores[0], rel=1e-5)
    assert not method.is_stale(store)
    assert method({}, store)["executed"] == 0
    os.utime(bundles / name / "models" / "model.pt")
    assert method({"max_samples": 1}, store)["executed"] == 1
    assert len(method.stale(store)) == len(others) - 1


def test_a_damaged_image_is_named_and_the_others_are_scored(
    bundles: Path, studies_frames: Path, tmp_path: Path
) -> None:
    studies = Path(shutil.copytree(studies_frames, tmp_path / "studies"))
    (studies / "broken.png").write_bytes(b"no picture")
    found = scoring(bundles, POLYPS)({}, SafeDatastore(str(studies)))
    assert (found["executed"], list(found["failed"])) == (6, ["broken"])
    assert "broken.png" in found["failed"]["broken"]


def test_boxes_and_bundles_without_weights_are_not_scored(bundles: Path, studies_frames: Path, tmp_path: Path) -> None:
    store = SafeDatastore(shutil.copytree(studies_frames, tmp_path / "studies"))
    tasks = {name: StrictBundleInference(str(bundles / name), {}) for name in (POLYPS, DETECTION)}
    assert list(make_scoring(tasks)) == [POLYPS]
    assert not can_be_scored(tasks[DETECTION])
    boxes = UncertaintyScoring(tasks[DETECTION])
    assert not boxes.is_stale(store)
    with pytest.raises(DataError, match="ssl_diverse"):
        boxes({}, store)
    empty = Path(shutil.copytree(bundles / POLYPS, tmp_path / "empty"))
    (empty / "models" / "model.pt").unlink()
    method = UncertaintyScoring(StrictBundleInference(str(empty), {}))
    assert not method.is_stale(store)
    with pytest.raises(DataError, match="train it first"):
        method({}, store)


def test_the_server_scores_in_a_process_of_its_own_and_ssl_uncertain_goes_by_it(frames_server: LabelServer) -> None:
    url = frames_server.url
    started = requests.post(f"{url}/scoring/{POLYPS}", json={"simulation_size": 2}, timeout=60)
    assert started.status_code == 200, started.text
    for _ in range(240):
        task = requests.get(f"{url}/scoring/", timeout=60).json()
        if task["status"] not in ("SUBMITTED", "RUNNING"):
            break
        time.sleep(0.5)
    assert task["status"] == "DONE", task
    for _ in range(40):  # the server hears of the other process's file from the operating system
        found = requests.post(f"{url}/activelearning/ssl_uncertain", json={"model": POLYPS}, timeout=60)
        if found.status_code == 200:
            break
        time.sleep(0.25)
    assert found.status_code == 200, found.text
    assert found.json()["uncertainty"] > 0
    assert found.json()[score_key(POLYPS)] == found.json()["uncertainty"]
