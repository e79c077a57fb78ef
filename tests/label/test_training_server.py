"""Training through a real server: progress, refusals, cancelling, a killed process, answers meanwhile."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="needs the label extra")

import psutil
import requests
from tiny_label import POLYPS, LabelServer, label_server

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.file_hash import file_sha256
from monai_ssl_transfer.label.versions import ModelVersions

PATIENCE = 300.0
LONG, SHORT = 5000, 2


@pytest.fixture(scope="module")
def server(label_app: Path, studies_frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """A server of its own, because its model changes; one bundle, no labels yet."""
    folder = tmp_path_factory.mktemp("training")
    bundle = folder / "app" / "model" / POLYPS
    shutil.copytree(label_app, folder / "app", ignore=lambda where, names: _others(where, names))
    file = bundle / "configs" / "train.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "num_workers": 0, "learning_rate": 0.0, "val_interval": 1}))
    studies = folder / "studies"
    shutil.copytree(studies_frames, studies)
    shutil.copytree(studies_frames.parent / "masks", folder / "masks")
    with label_server(folder / "app", studies) as started:
        yield started


def _others(where: str, names: list[str]) -> list[str]:
    return [one for one in names if Path(where).name == "model" and one != POLYPS]


def model_of(server: LabelServer) -> Path:
    return server.app / "model" / POLYPS / "models" / "model.pt"


def train(server: LabelServer, **params: Any) -> requests.Response:
    asked = {"device": "cpu", "val_split": 0.34, **params}
    return requests.post(f"{server.url}/train/{POLYPS}", json=asked, timeout=120)


def told(server: LabelServer) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"{server.url}/info/", timeout=120).json()["train_stats"][POLYPS]
    return answer


def task(server: LabelServer) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(f"{server.url}/train/", timeout=120).json()
    return answer


def wait_until(reached: Callable[[], bool], server: LabelServer) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, f"{task(server)}\n{server.log()[-3000:]}"
        time.sleep(0.2)


def label(server: LabelServer, numbers: range) -> None:
    """Send masks as an annotator's client does."""
    for number in numbers:
        mask = server.studies.parent / "masks" / f"frame_{number}.png"
        with mask.open("rb") as stream:
            url = f"{server.url}/datastore/label?image=frame_{number}&tag=final"
            answer = requests.put(url, files={"label": (mask.name, stream, "image/png")}, timeout=120)
        assert answer.status_code == 200, answer.text


def begun(server: LabelServer) -> None:
    """A long training whose first epochs are told."""
    answer = train(server, max_epochs=LONG)
    assert answer.status_code == 200, answer.text
    wait_until(lambda: told(server).get("state") == "training" and told(server)["epoch"] >= 1, server)


def training_processes(server: LabelServer) -> list[psutil.Process]:
    started = psutil.Process(server.process.pid).children(recursive=True)
    return [one for one in started if "monailabel.interfaces.utils.app" in one.cmdline()]


def test_training_through_the_server(server: LabelServer) -> None:
    before = file_sha256(model_of(server))

    # nothing to learn from, or nothing sensible asked: told at once
    assert train(server).status_code == 422
    label(server, range(1))
    refused = train(server)
    assert (refused.status_code, refused.json()["detail"][:21]) == (422, "one image is labelled")
    label(server, range(1, 4))
    assert "max_epochs is 0" in train(server, max_epochs=0).json()["detail"]
    assert "val_split is 2" in train(server, val_split=2).json()["detail"]

    # two at once, progress, answers meanwhile, cancelling
    begun(server)
    second = train(server)
    assert (second.status_code, POLYPS in second.json()["detail"]) == (429, True)
    assert any(f"epoch 1 of {LONG}: loss" in line for line in task(server)["details"]) or told(server)["epoch"] > 15
    assert told(server)["total_epochs"] == LONG and told(server)["curve"][0]["metric"] == "mean_dice"
    answer = requests.post(f"{server.url}/infer/{POLYPS}?image=frame_5&output=image", timeout=120)
    assert answer.status_code == 200 and answer.content.startswith(b"\x89PNG")
    assert requests.delete(f"{server.url}/train/", timeout=120).json()["status"] == "STOPPED"
    wait_until(lambda: told(server)["state"] == "interrupted", server)
    assert file_sha256(model_of(server)) == before

    # a training process that is killed
    begun(server)
    (process,) = training_processes(server)
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: task(server)["status"] == "ERROR", server)
    assert told(server)["state"] == "interrupted" and file_sha256(model_of(server)) == before

    # and one that ends
    assert train(server, max_epochs=SHORT).status_code == 200
    wait_until(lambda: task(server)["status"] in ("DONE", "ERROR"), server)
    assert task(server)["status"] == "DONE", task(server)["details"]
    versions = ModelVersions(model_of(server).parents[1], server.app / "versions" / POLYPS)
    (record,) = versions.trainings()
    assert (told(server)["state"], told(server)["result"]) == ("done", record)
    assert record["training"] + record["validation"] == 4
    assert (file_sha256(model_of(server)) != before) == record["replaced"]
    assert requests.post(f"{server.url}/infer/{POLYPS}?image=frame_5&output=image", timeout=120).status_code == 200


def test_the_server_killed_during_training(server: LabelServer, capsys: pytest.CaptureFixture[str]) -> None:
    label(server, range(4))
    before = file_sha256(model_of(server))
    begun(server)
    (process,) = training_processes(server)
    server.process.kill()
    server.process.wait(10)
    gone, alive = psutil.wait_procs([process], timeout=PATIENCE)
    assert gone and not alive, "the training outlived its server"
    assert file_sha256(model_of(server)) == before
    labels = server.studies / "labels" / "final"
    assert sorted(one.name for one in labels.iterdir()) == [f"frame_{number}.png" for number in range(4)]
    progress = max((server.app / "runs" / POLYPS).glob("*/progress.json"))
    assert "server that began this training has ended" in json.loads(progress.read_text())["message"]

    versions = ModelVersions(model_of(server).parents[1], server.app / "versions" / POLYPS)
    command = ["label-versions", POLYPS, "--app", str(server.app)]
    if versions.listed():
        assert main([*command, "--restore", "1"]) == 0
        assert file_sha256(model_of(server)) == versions.listed()[0].sha256
        assert "1 " in capsys.readouterr().out.splitlines()[0]
    assert main([*command, "--restore", "99"]) == 2
    assert "has no version 99" in capsys.readouterr().err
