"""What others do with an exported bundle, by MONAI's own commands; where the package is refused, nothing misses it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import jsonschema
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    create_workflow,
    download,
    load,
    onnx_export,
    push_to_hf_hub,
    scripts,
    verify_metadata,
    verify_net_in_out,
)
from own_environment import linked_environment
from tiny_exports import LANDMARKS, LIVER, Exported, carry_out

from monai_ssl_transfer.export.archive import write_zip
from monai_ssl_transfer.file_hash import file_sha256

REFUSING = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "monai_ssl_transfer":
            raise ImportError(f"refused: {name}")
sys.meta_path.insert(0, Refuse())
"""
ALONE = """
import json, sys
from importlib import import_module
from pathlib import Path
try:
    import monai_ssl_transfer
except ImportError as error:
    assert "refused" in str(error)
else:
    raise SystemExit("the package can be imported")
import monai.bundle
for job in json.loads(sys.argv[1]):
    config = str(Path(job["folder"]) / "configs" / "inference.json")
    if job["by"] == "run":
        monai.bundle.run(config_file=config, **job["override"])
    else:
        workflow = monai.bundle.ConfigWorkflow(config, workflow_type="infer", **job["override"])
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()
    network = monai.bundle.load(Path(job["folder"]).name, bundle_dir=Path(job["folder"]).parent,
                                workflow_type="inference", device="cpu")
    assert type(network).__module__.startswith("monai."), type(network)
for root in sys.argv[2:]:  # the code of every other bundle
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        del sys.modules[name]
    sys.path.insert(0, root)
    for file in sorted(Path(root, "scripts").rglob("*.py")):
        import_module(".".join(file.relative_to(root).with_suffix("").parts))
    sys.path.remove(root)
assert not [name for name in sys.modules if name.startswith("monai_ssl_transfer")]
"""


@pytest.fixture(params=[LIVER, LANDMARKS])
def exported(request: pytest.FixtureRequest) -> Exported:
    return request.getfixturevalue("liver" if request.param == LIVER else "landmarks")


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def config(exported: Exported, name: str) -> str:
    return str(exported.folder / "configs" / name)


def package_network(exported: Exported) -> torch.nn.Module:
    """The run's network, built by nothing of the export."""
    parser = ConfigParser(json.loads((exported.run / "config.json").read_text()))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(exported.run / "models" / "model.pt", weights_only=True))
    return network


def picture(side: int = 64) -> torch.Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(3))


def test_inference_without_the_package_writes_the_same_bytes(
    liver: Exported, landmarks: Exported, tmp_path: Path, other_scripts: list[str]
):
    (tmp_path / "sitecustomize.py").write_text(REFUSING)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    jobs = []
    for one, by in ((liver, "run"), (landmarks, "workflow")):
        override: dict[str, Any] = {"dataset_dir": str(one.data), "output_dir": str(tmp_path / one.name)}
        override |= {"device": "cpu"} | ({} if one is liver else {"num_workers": 0})
        jobs.append({"folder": str(one.folder), "by": by, "override": override})
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(jobs), *other_scripts],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for one in (liver, landmarks):
        assert digests(tmp_path / one.name) == digests(one.run.parent / "predicted") != {}
    assert list(elsewhere.iterdir()) == []


def test_the_words_of_the_readme_in_an_environment_of_its_own(exported: Exported, tmp_path: Path):
    """Where only what the README's pip line names is installed, its inference command writes the same bytes."""
    commands = (exported.folder / "docs" / "README.md").read_text().partition("```sh\n")[2].partition("\n\n")[0]
    _, pip, typed = commands.splitlines()
    environment = linked_environment(shlex.split(pip)[2:], tmp_path / "site")
    given = {"python": [sys.executable, "-S"], "FOLDER": [str(exported.data)], "OUT": [str(tmp_path / "out")]}
    words = [word for one in shlex.split(typed) for word in given.get(one, [one])]
    words += ["--device", "cpu", *([] if exported.name == LIVER else ["--num_workers", "0"])]
    done = subprocess.run(
        words, cwd=exported.folder.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert digests(tmp_path / "out") == digests(exported.run.parent / "predicted") != {}


def test_load_gives_the_trained_network(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    expected = package_network(exported)
    for kind in ("train", "inference"):
        network = load(exported.name, bundle_dir=exported.folder.parent, workflow_type=kind, device="cpu").eval()
        with torch.no_grad():
            assert torch.equal(network(picture()), expected(picture())), kind
    assert list(tmp_path.iterdir()) == []  # the training that load prepares leaves no trace
    assert not (exported.folder / "training").exists()


def model_files(exported: Exported) -> dict[str, Any]:
    """What MONAI's exports of a network ask for."""
    files = {"ckpt_file": str(exported.folder / "models" / "model.pt"), "meta_file": config(exported, "metadata.json")}
    files |= {"bundle_root": str(exported.folder)}  # no workflow is there to look it up from
    return files | {"config_file": config(exported, "inference.json"), "key_in_ckpt": "", "input_shape": [1, 3, 64, 64]}


def test_onnx_gives_the_same_output(landmarks: Exported, tmp_path: Path):
    """MONAI's resnet18 in a FlexibleUNet is refused by torch's exporter (its shortcut makes zeros while it runs)."""
    onnx_export(net_id="network_def", filepath=str(tmp_path / "model.onnx"), use_trace=True, **model_files(landmarks))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: picture().numpy()})[0]
    with torch.no_grad():
        wanted = package_network(landmarks)(picture()).numpy()
    assert found.shape == wanted.shape
    assert float(np.abs(found - wanted).max()) < 1e-4


def test_torchscript_gives_the_same_output(landmarks: Exported, tmp_path: Path):
    with torch.no_grad():
        wanted = package_network(landmarks)(picture())
        assert torch.equal(torch.jit.load(str(landmarks.folder / "models" / "model.ts"))(picture()), wanted)
        again = {"filepath": str(tmp_path / "again.ts"), "use_trace": False}
        ckpt_export(net_id="network_def", **again, **model_files(landmarks))
        assert torch.equal(torch.jit.load(str(tmp_path / "again.ts"))(picture()), wanted)


def test_the_readme_says_why_there_is_no_torchscript(liver: Exported):
    """MONAI's own ResNet18 cannot be scripted: its shortcut is a functools.partial."""
    assert not (liver.folder / "models" / "model.ts").exists()
    readme = (liver.folder / "docs" / "README.md").read_text()
    said = next(line for line in readme.splitlines() if "TorchScript is not supported" in line)
    assert "'downsample'" in said


def test_the_zoo_accepts_it(exported: Exported, tmp_path: Path, metadata_schema: dict[str, Any]):
    for name in ("LICENSE", "models/model.pt", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"):
        assert (exported.folder / name).is_file(), name
    assert [path.name for path in (exported.folder / "models").glob("*.pt")] == ["model.pt"]
    metadata = json.loads(Path(config(exported, "metadata.json")).read_text())
    jsonschema.validate(metadata, metadata_schema)
    assert metadata["version"] in metadata["changelog"]
    assert "monai-ssl-transfer" not in metadata["required_packages_version"]
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(metadata_schema))
    verify_metadata(meta_file=config(exported, "metadata.json"), filepath=str(schema))
    verify_net_in_out(
        net_id="network_def", meta_file=config(exported, "metadata.json"),
        config_file=config(exported, "inference.json"), device="cpu", n=2,
    )  # fmt: skip
    paths = {"dataset_dir": str(exported.data), "output_dir": str(tmp_path), "device": "cpu"}
    training = ConfigWorkflow(config(exported, "train.json"), logging_file=False, num_workers=0, **paths)
    training.initialize()
    assert training.check_properties() == []


def test_the_metadata_and_the_readme_say_what_was_measured(liver: Exported, landmarks: Exported):
    for one, measured in ((liver, "liver_dice"), (landmarks, "balanced_accuracy")):
        metadata = json.loads(Path(config(one, "metadata.json")).read_text())
        summary = json.loads((one.run / "eval" / "summary.json").read_text())
        value = summary["classes"]["liver"]["dice"]["mean"] if one is liver else summary[measured]
        assert metadata["eval_metrics"][measured] == value
        readme = (one.folder / "docs" / "README.md").read_text()
        assert f"| {measured.replace('_', ' ')} | {value:.4g} |" in readme
        assert "ships no weights" not in readme
        assert "no weights come" not in readme
        assert "random weights" in readme
    form = json.loads(Path(config(landmarks, "metadata.json")).read_text())["network_data_format"]
    assert form["inputs"]["image"]["spatial_shape"] == [48, 48]
    assert next(iter(form["outputs"]["pred"]["channel_def"].values())) == "cecum"


def test_settings_of_the_run_are_in_and_paths_are_not(exported: Exported):
    texts = [path.read_text() for path in exported.folder.rglob("*") if path.suffix in (".json", ".md", ".txt", ".py")]
    assert not [text for text in texts if str(exported.data.parent) in text or "/work" in text]
    inference = json.loads(Path(config(exported, "inference.json")).read_text())
    train = json.loads(Path(config(exported, "train.json")).read_text())
    assert train["encoder_weights"] is None
    if exported.name == LIVER:
        assert inference["pixel_spacing"] == train["pixel_spacing"] == 8.0
        assert inference["network_def"]["_target_"] == "monai.networks.nets.FlexibleUNet"
        assert inference["network_def"]["backbone"] == "resnet18"
    else:
        assert inference["image_size"] == 48
        assert inference["class_names"][0] == "cecum"
        assert inference["network_def"]["_target_"] == "scripts.networks.classification.build_classifier"


def test_the_exported_training_and_evaluation_run(landmarks: Exported, tmp_path: Path):
    both = [config(landmarks, "train.json"), config(landmarks, "evaluate.json")]
    override = {"dataset_dir": str(landmarks.data), "device": "cpu", "num_workers": 0, "evaluate_part": "all"}
    judged = create_workflow(config_file=both, output_dir=str(tmp_path), logging_file=False, **override)
    judged.run()
    assert json.loads((tmp_path / "evaluated.json").read_text())["evaluate_part"] == "all"
    assert json.loads((tmp_path / "summary.json").read_text())["n"] == 36
    training = {name: value for name, value in override.items() if name != "evaluate_part"}
    again = ConfigWorkflow(both[0], logging_file=False, output_dir=str(tmp_path / "run"), epochs=1, **training)
    carry_out(again)
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"models", "config.json", "encoder_load.json"} <= written


def test_the_zip_is_the_same_every_time_and_downloads_like_a_release(
    landmarks: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    packed = landmarks.folder.with_name(f"{LANDMARKS}_v0.1.0.zip")
    os.utime(landmarks.folder / "LICENSE")
    compiled = landmarks.folder / "scripts" / "__pycache__" / "a_run_of_the_bundle.cpython-311.pyc"
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(b"leaves this")
    write_zip(landmarks.folder, tmp_path / "again.zip")
    assert file_sha256(tmp_path / "again.zip") == file_sha256(packed)  # of bytes, pytest would show every difference
    names = zipfile.ZipFile(packed).namelist()
    assert names == sorted(names)
    assert all(name.startswith(f"{LANDMARKS}/") for name in names)
    release = tmp_path / "www" / "owner" / "repository" / "releases" / "download" / "tag"
    release.mkdir(parents=True)
    os.link(packed, release / packed.name)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        root = f"http://127.0.0.1:{server.server_port}"
        github = scripts._get_git_release_url  # MONAI's own addresses, on this machine instead of github.com
        monkeypatch.setattr(
            scripts, "_get_git_release_url", lambda *a, **k: github(*a, **k).replace("https://github.com", root)
        )
        place = {"bundle_dir": str(tmp_path / "github"), "source": "github", "repo": "owner/repository/tag"}
        download(name=LANDMARKS, version="0.1.0", progress=False, **place)
        url = f"{root}/owner/repository/releases/download/tag/{packed.name}"
        download(url=url, bundle_dir=str(tmp_path / "url"), name=LANDMARKS, progress=False)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    for place in ("github", "url"):
        assert digests(tmp_path / place / LANDMARKS) == digests(landmarks.folder)


def test_the_hub_gets_the_bundle_at_the_root_of_its_repository(
    landmarks: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import shutil

    calls: list[tuple[str, dict[str, Any]]] = []

    class LocalHub:
        """Stands in for the Hub: it keeps what is uploaded."""

        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, **options: Any) -> None:
            calls.append(("create_repo", options))

        def upload_folder(self, **options: Any) -> str:
            shutil.copytree(options["folder_path"], tmp_path / "hub")
            return "local"

        def create_tag(self, **options: Any) -> None:
            calls.append(("create_tag", options))

    monkeypatch.setattr(huggingface_hub, "HfApi", LocalHub)
    shutil.copytree(landmarks.folder, tmp_path / LANDMARKS)  # MONAI writes the card into the folder
    push_to_hf_hub("owner/name", LANDMARKS, str(tmp_path), version="0.1.0")
    uploaded = digests(tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---")
    assert "license: apache-2.0" in card
    uploaded.pop("README.md")
    assert uploaded == digests(landmarks.folder)
    assert ("create_tag", {"repo_id": "owner/name", "tag": "0.1.0", "exist_ok": True}) in calls
