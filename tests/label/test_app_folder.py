"""The app folder and the command that makes and serves it."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

pytest.importorskip("monailabel", reason="needs the label extra")

from monai.bundle import ConfigParser
from tiny_label import DETECTION, POLYPS, end_tree

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.errors import LabelError
from monai_ssl_transfer.label.workspace import prepare_app, read_settings, served_bundles


def zipped(folder: Path, archive: Path, extra: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(folder.rglob("*.json")):
            opened.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
        if extra:
            opened.writestr(extra, "x")
    return archive


def test_bundles_come_from_names_folders_and_zips(exported: Path, tmp_path: Path) -> None:
    archive = zipped(exported / "ct_liver_segmentation", tmp_path / "liver.zip")
    app = tmp_path / "app"
    states = prepare_app(app, [DETECTION, str(exported / POLYPS), str(archive)])
    assert states == dict.fromkeys((DETECTION, POLYPS, "ct_liver_segmentation"), "new")
    assert sorted(served_bundles(app)) == sorted(states)
    assert (app / "model" / POLYPS / "models" / "model.pt").read_bytes() == (
        exported / POLYPS / "models" / "model.pt"
    ).read_bytes()
    assert len([line for line in (app / "main.py").read_text().splitlines() if line]) == 2
    config = ConfigParser.load_config_file(app / "model" / DETECTION / "configs" / "train.json")
    assert "bundles/" not in config["bundle_root"]  # finds itself, wherever it is run


def test_overlays_are_in_the_training_and_in_the_answers(exported: Path, tmp_path: Path) -> None:
    smaller = "+configs/networks/unet_resnet18.json+configs/scale/liver_two_cores.json"
    prepare_app(tmp_path / "app", [f"ct_liver_segmentation{smaller}"])
    configs = tmp_path / "app" / "model" / "ct_liver_segmentation" / "configs"
    train, inference = (ConfigParser.load_config_file(configs / f"{one}.json") for one in ("train", "inference"))
    assert train["network_def"]["encoder"] == inference["network_def"]["encoder"] == "resnet18"
    assert (train["slices_per_epoch"], inference["pixel_spacing"]) == (160, 3.0)
    for bundle, said in ((f"{exported / POLYPS}{smaller}", "was exported"), (f"{DETECTION}+no.json", "no overlay no")):
        with pytest.raises(LabelError, match=said):
            prepare_app(tmp_path / "other", [bundle])
    assert not (tmp_path / "other").exists()


def test_what_is_there_is_kept(exported: Path, tmp_path: Path) -> None:
    app, encoder = tmp_path / "app", tmp_path / "encoder.pt"
    encoder.write_bytes(b"x")
    prepare_app(app, [str(exported / POLYPS)], encoder)
    trained = app / "model" / POLYPS / "models" / "model.pt"
    trained.write_bytes(b"trained on here")
    assert prepare_app(app, [str(exported / POLYPS), DETECTION]) == {POLYPS: "kept", DETECTION: "new"}
    assert trained.read_bytes() == b"trained on here"
    assert read_settings(app).encoder == str(encoder)


def test_refusals_are_sentences_and_leave_nothing(exported: Path, tmp_path: Path) -> None:
    polyps = exported / POLYPS
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    for bundles, said in (
        ([], "no bundle is named"),
        (["nonsense"], "nonsense is no bundle"),
        (["ct_ssl_pretraining"], "makes encoders"),
        ([str(tmp_path / "bad.zip")], "cannot be read"),
        ([str(zipped(polyps, tmp_path / "up.zip", "../../up.txt"))], "holds no single bundle"),
        ([str(polyps), POLYPS], f"two of --bundles are called {POLYPS}"),
    ):
        with pytest.raises(LabelError, match=said):
            prepare_app(tmp_path / "app", bundles)
    with pytest.raises(LabelError, match="there is no encoder"):
        prepare_app(tmp_path / "app", [DETECTION], tmp_path / "nothing.pt")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(LabelError, match="is no app folder"):
        prepare_app(other, [DETECTION])
    assert not (tmp_path / "app").exists()
    assert [one.name for one in other.iterdir()] == ["thesis.txt"]


def test_a_full_disk_leaves_no_half_app(small_disk: Callable[[str], Path], exported: Path) -> None:
    disk = small_disk("200k")
    with pytest.raises(LabelError, match="free space there or choose another --app"):
        prepare_app(disk / "app", [str(exported / POLYPS)])
    assert not any(disk.iterdir())


def test_a_damaged_record_is_told(exported: Path, tmp_path: Path) -> None:
    prepare_app(tmp_path / "app", [DETECTION])
    file = tmp_path / "app" / "label_app.json"
    for text in ("{", "[]", json.dumps({"format": 1, "unknown": 2})):
        file.write_text(text)
        with pytest.raises(LabelError, match="is damaged"):
            read_settings(tmp_path / "app")
    file.write_text(json.dumps({"format": 2}))
    with pytest.raises(LabelError, match="another version"):
        read_settings(tmp_path / "app")


def test_the_command_prepares_and_says_how_to_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONAI_LABEL_AUTH_ENABLE", raising=False)
    (tmp_path / "scans").mkdir()
    command = ["label", "--bundles", DETECTION, "--studies", str(tmp_path / "scans"), "--app", str(tmp_path / "app")]
    assert main([*command, "--prepare_only"]) == 0
    said = capsys.readouterr().out
    assert "no trained weights yet" in said
    assert "only this computer can reach it" in said
    assert "MONAI_LABEL_AUTH_ENABLE=true" in said
    assert "--host 127.0.0.1" in said
    assert main([*command, "--prepare_only", "--host", "0.0.0.0"]) == 0
    assert "EVERYBODY" in capsys.readouterr().out
    assert main(["label", "--bundles", DETECTION, "--studies", str(tmp_path / "typo")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "monailabel", None)
    assert main(command) == 2
    assert "pip install 'monai-ssl-transfer[label]'" in capsys.readouterr().err


def test_the_command_serves_a_read_only_folder(
    small_disk: Callable[[str], Path], exported: Path, studies_frames: Path, tmp_path: Path
) -> None:
    disk = small_disk("2m")
    shutil.copyfile(studies_frames / "frame_5.png", disk / "frame_5.png")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "monai_ssl_transfer.cli", "label", "--bundles", str(exported / POLYPS)]
    command += ["--studies", str(disk), "--app", str(tmp_path / "app"), "--port", str(port)]
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ})
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end
            try:
                info = requests.get(f"{url}/info/", timeout=60).json()
                break
            except requests.ConnectionError:
                time.sleep(0.3)
        assert info["datastore"] == {"total": 1, "completed": 0, "label_tags": {}, "read_only": True}
        answer = requests.post(f"{url}/infer/{POLYPS}?image=frame_5&output=image", timeout=120)
        assert answer.status_code == 200
        label = {"label": ("x.png", io.BytesIO(answer.content))}
        refused = requests.put(f"{url}/datastore/label?image=frame_5", files=label, timeout=60)
        assert (refused.status_code, "is read-only" in refused.json()["detail"]) == (403, True)
        assert requests.post(f"{url}/activelearning/first", json={}, timeout=60).json()["id"] == "frame_5"
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X} 00000000:0000 0A" in listening  # 127.0.0.1 only
    finally:
        end_tree(process)
