"""What the MONAI model zoo checks of a bundle, applied to every bundle of this project; one epoch of real use of each.

Re-expressed from the zoo's `verify_bundle.py` and unit-test runner: files, metadata, properties of the three workflows,
network input and output, TorchScript export, `monai.bundle.load`, and train -> evaluate -> inference on tiny data.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, load, verify_metadata, verify_net_in_out
from safetensors.torch import load_file

from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.engines.embedding.embed import read_embeddings

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(folder.name for folder in (ROOT / "bundles").iterdir() if (folder / "configs").is_dir())
OVERLAYS = sorted(
    str(path.relative_to(ROOT / "configs"))
    for path in (ROOT / "configs").rglob("*.json")
    # of an evaluation and of frozen encoders: test_corruption_dictionary.py, test_task_probes.py
    if path.parent.name not in ("robustness", "probes")
)

SETTINGS: dict[str, dict[str, Any]] = {
    bundle: json.loads((Path(__file__).parent / "settings" / f"{bundle}.json").read_text()) for bundle in BUNDLES
}
"""Per bundle: overrides that make each workflow tiny, an overlay with a small encoder for the runs ("network"; the
checks of the definition use the bundle's own network), how the names of the overlays that it takes begin, and why a
check of its network does not apply ("no_net_check", "no_torchscript")."""
SHARED = ("network_def", "network", "inferer", "channels", "pixel_spacing", "image_size", "class_names", "precision")
"""Ids of train.json and inference.json that must be equal where both have them."""
METADATA_SCHEMA = {
    "type": "object",
    "required": [
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
        "description", "authors", "copyright", "network_data_format",
    ],
    "properties": {
        "schema": {"type": "string"},
        "version": {"type": "string", "pattern": r"^\d\.\d\.\d$"},
        "changelog": {"type": "object"},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": {"type": "object", "additionalProperties": {"$ref": "#/definitions/tensor"}},
        },
    },
    "definitions": {
        "tensor": {
            "type": "object",
            "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
            "properties": {
                "num_channels": {"type": "integer"},
                "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
                "value_range": {"type": "array", "items": {"type": "number"}},
                "dtype": {"enum": ["float32", "float16", "uint8"]},
                "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        }
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def strict_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")
    monkeypatch.chdir(ROOT)


def config(bundle: str, name: str) -> str:
    return str(ROOT / "bundles" / bundle / "configs" / name)


def content(bundle: str, name: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(config(bundle, name))


def workflow(bundle: str, kind: str, **override: Any) -> ConfigWorkflow:
    """A workflow as `python -m monai.bundle run` makes it, tiny."""
    names = {"train": ["train.json"], "evaluate": ["train.json", "evaluate.json"], "inference": ["inference.json"]}[
        kind
    ]
    files = [config(bundle, name) for name in names]
    if "network" in SETTINGS[bundle]:
        files.append(str(ROOT / "configs" / SETTINGS[bundle]["network"]))
    override = {"num_workers": 0, "device": torch.device("cpu")} | SETTINGS[bundle][kind] | override
    return ConfigWorkflow(
        files, logging_file=False, workflow_type="infer" if kind == "inference" else "train", **override
    )


def carry_out(run: ConfigWorkflow) -> None:
    """Initialize, check and run, as the zoo's unit tests do."""
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_files_of_a_bundle_are_there(bundle: str):
    folder = ROOT / "bundles" / bundle
    wanted = ["train.json", "evaluate.json", "inference.json", "multi_gpu_train.json", "metadata.json", "logging.conf"]
    for name in [*(f"configs/{one}" for one in wanted), "LICENSE", "docs/README.md"]:
        assert (folder / name).is_file(), name
    readme = (folder / "docs" / "README.md").read_text().lower()
    for section in ("description", "data", "input", "output", "performance", "limitations", "license"):
        assert section in readme, section


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_follow_the_schema(bundle: str, tmp_path: Path):
    import jsonschema

    metadata = content(bundle, "metadata.json")
    jsonschema.validate(metadata, METADATA_SCHEMA)
    assert metadata["version"] in metadata["changelog"]
    assert next(iter(metadata["network_data_format"]["inputs"])) == "image"
    assert next(iter(metadata["network_data_format"]["outputs"])) == "pred"
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(METADATA_SCHEMA))
    verify_metadata(meta_file=config(bundle, "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("bundle", [name for name in BUNDLES if "no_net_check" not in SETTINGS[name]])
def test_network_takes_and_gives_what_the_metadata_say(bundle: str):
    verify_net_in_out(
        net_id="network_def",
        meta_file=config(bundle, "metadata.json"),
        config_file=config(bundle, "inference.json"),
        device="cpu",
        n=2,
    )


@pytest.mark.parametrize("bundle", BUNDLES)
def test_train_and_inference_do_not_drift(bundle: str):
    train, inference = content(bundle, "train.json"), content(bundle, "inference.json")
    compared = [name for name in SHARED if name in train and name in inference]
    assert "network_def" in compared
    usual = inference.get("settings", {})  # inference that reads an encoder's card names its defaults there
    for name in compared:
        if name != "inferer":
            assert train[name] == usual.get(name, inference[name]), name
    if "validate" in train:
        assert train["validate"]["inferer"] == inference["inferer"]
        assert steps(train, train["validate"]["preprocessing"]) == steps(inference, inference["preprocessing"])
    assert "@_meta_" not in Path(config(bundle, "inference.json")).read_text()  # MONAI Label does not load it


def steps(settings: dict[str, Any], preprocessing: dict[str, Any]) -> list[str]:
    """Transforms of the image with their arguments, whatever is done to the label beside it."""
    transforms = preprocessing["transforms"]
    if isinstance(transforms, str):
        parts = [part.strip().removeprefix("@train#") for part in transforms.removeprefix("$").split("+")]
        transforms = [transform for part in parts for transform in settings["train"][part]]
    found = []
    for transform in transforms:
        other = ("monai_ssl_transfer.data.annotations.", "monai.transforms.SelectItemsd")  # of labels, of what goes on
        if transform["_target_"].startswith(other):
            continue
        keys = transform["keys"]
        names = ["image" if key == "@image_key" else key for key in ([keys] if isinstance(keys, str) else keys)]
        if "image" in names:
            found.append(json.dumps(transform | {"keys": "image"}, sort_keys=True))
    return found


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("kind", ["train", "inference"])
def test_load_returns_the_network_with_its_weights(bundle: str, kind: str, tmp_path: Path):
    shutil.copytree(ROOT / "bundles" / bundle / "configs", tmp_path / bundle / "configs")
    parser = ConfigParser(content(bundle, f"{kind}.json"))
    torch.manual_seed(11)
    network = parser.get_parsed_content("network_def")
    (tmp_path / bundle / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / bundle / "models" / "model.pt")
    loaded = load(bundle, bundle_dir=str(tmp_path), workflow_type=kind, device="cpu", source="monaihosting")
    assert isinstance(loaded, torch.nn.Module)
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("bundle", [name for name in BUNDLES if "no_torchscript" not in SETTINGS[name]])
def test_torchscript_export_gives_the_same_output(bundle: str, tmp_path: Path):
    network = ConfigParser(content(bundle, "inference.json")).get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(tmp_path / "model.pt"),
        meta_file=config(bundle, "metadata.json"),
        config_file=config(bundle, "inference.json"),
        key_in_ckpt="",
        input_shape=[1, 3, 64, 64],
        use_trace=False,
    )
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(str(tmp_path / "model.ts"))(x), network(x), atol=1e-5)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_some_bundle_takes_every_overlay(overlay: str):
    assert any(overlay.startswith(tuple(SETTINGS[bundle]["overlays"])) for bundle in BUNDLES)


PAIRS = [
    # a ViT-B takes seconds to build, and differs from a ViT-S in its widths only
    pytest.param(one, bundle, marks=[pytest.mark.slow] if "vit_base" in one else [])
    for bundle in BUNDLES
    for one in OVERLAYS
    if one.startswith(tuple(SETTINGS[bundle]["overlays"]))
]


@pytest.mark.parametrize(("overlay", "bundle"), PAIRS)
def test_every_overlay_fits_its_bundles(overlay: str, bundle: str):
    """What it changes exists in the training of its bundle, and what it builds can be built."""
    wanted = ConfigParser.load_config_file(str(ROOT / "configs" / overlay))
    train = content(bundle, "train.json")
    ids = {name.lstrip("+").split("#")[0] for name in wanted if not name.startswith("_")}
    parser = ConfigParser(train)
    parser.update(wanted)
    if "method_name" in train:  # a pretraining
        encoder = wanted.get("encoder_name", "resnet18")
        small = {"image_size": 28 if "dinov2" in encoder else 32, "encoder_name": encoder, "preset#images": 642}
        parser.update(small | {"encoder_weights": None, "run_length": SimpleNamespace(epochs=100)})
        assert isinstance(parser.get_parsed_content("method"), torch.nn.Module)
        return
    used = {name for name in ids if f'"@{name}"' in json.dumps(wanted)}  # settings that the overlay brings for itself
    assert ids - used <= train.keys()
    if "network_def" in wanted:
        network = parser.get_parsed_content("network_def").eval()
        if "no_net_check" in SETTINGS[bundle]:
            return
        with torch.no_grad():
            out = network(torch.zeros(1, 3, *[int(train["image_size"])] * 2))
        assert (
            out.shape[1] == content(bundle, "metadata.json")["network_data_format"]["outputs"]["pred"]["num_channels"]
        )
    for name in sorted(ids & {"decoder_first_epochs", "encoder_learning_rate_factor"}):
        assert parser.get_parsed_content(name) >= 0


def test_liver_train_evaluate_inference(lits_folder: Path, tmp_path: Path):
    run, name = tmp_path / "run", "ct_liver_segmentation"
    carry_out(workflow(name, "train", dataset_dir=str(lits_folder), output_dir=str(run), epochs=1))
    assert {path.name for path in (run / "models").iterdir()} == {"model.pt"}
    recorded = json.loads((run / "cases.json").read_text())
    assert [len(recorded[part]) for part in ("train", "validation", "test")] == [2, 1, 1]
    model = str(run / "models" / "model.pt")
    carry_out(
        workflow(name, "evaluate", dataset_dir=str(lits_folder), model_file=model, output_dir=str(tmp_path / "eval"))
    )
    rows = list(csv.DictReader((tmp_path / "eval" / "metrics.csv").open()))
    assert [(r["case"], r["class"]) for r in rows] == [(c, k) for c in recorded["test"] for k in ("liver", "tumour")]
    assert json.loads((tmp_path / "eval" / "summary.json").read_text())["cases"] == len(recorded["test"])
    assert f"<b>{recorded['test'][0]}</b><br>slice" in (tmp_path / "eval" / "overlays.html").read_text()
    evaluated = json.loads((tmp_path / "eval" / "evaluated.json").read_text())["evaluated"]
    held_out = {"part": "test", "cases": 1, "in_training": 0, "in_validation": 0, "same_folder": True}
    assert evaluated == held_out
    carry_out(
        workflow(name, "inference", dataset_dir=str(lits_folder), model_file=model, output_dir=str(tmp_path / "masks"))
    )
    for path in sorted(lits_folder.glob("volume-*")):
        image = nibabel.load(path)
        mask = nibabel.load(tmp_path / "masks" / path.name.replace(".nii", "_seg.nii"))
        assert mask.shape == image.shape
        assert np.array_equal(mask.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8
    case = recorded["test"][0]
    truth = np.asarray(nibabel.load(next(lits_folder.glob(f"segmentation-{case}.nii*"))).dataobj)
    mask = np.asarray(nibabel.load(next((tmp_path / "masks").glob(f"volume-{case}_seg.nii*"))).dataobj)
    dice = 2 * ((mask > 0) & (truth > 0)).sum() / ((mask > 0).sum() + (truth > 0).sum())
    assert float(rows[0]["dice"]) == pytest.approx(dice, abs=1e-5)  # the written mask is what was judged


def test_body_region_train_evaluate_inference(region_store: Path, tmp_path: Path):
    run, name = tmp_path / "run", "ct_body_region_classification"
    carry_out(workflow(name, "train", dataset_dir=str(region_store), output_dir=str(run), epochs=2))
    patients = json.loads((run / "patients.json").read_text())
    sides = [set(patients[part]) for part in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 12
    model = str(run / "models" / "model.pt")
    out = tmp_path / "out"
    carry_out(workflow(name, "evaluate", dataset_dir=str(region_store), model_file=model, output_dir=str(out)))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n"] == 2 * len(patients["test"])
    evaluated = json.loads((out / "evaluated.json").read_text())["evaluated"]
    assert (evaluated["part"], evaluated["in_training"], evaluated["in_validation"]) == ("test", 0, 0)
    assert 0 <= summary["balanced_accuracy"] <= 1
    carry_out(workflow(name, "inference", dataset_dir=str(region_store), model_file=model, output_dir=str(out)))
    rows = list(csv.DictReader((out / "probabilities.csv").open()))
    assert len(rows) == 24
    names = content(name, "train.json")["class_names"]
    assert all(sum(float(row[n]) for n in names) == pytest.approx(1, abs=1e-4) for row in rows)


def test_pretraining_train_evaluate_inference(region_store: Path, tmp_path: Path):
    run, name = tmp_path / "run", "ct_ssl_pretraining"
    carry_out(workflow(name, "train", dataset_dir=str(region_store), output_dir=str(run), epochs=1))
    assert (run / "encoder.safetensors").is_file()
    carry_out(workflow(name, "evaluate", dataset_dir=str(region_store), output_dir=str(run)))
    pretrained = load_file(run / "encoder.safetensors")
    for task in ("ct_liver_segmentation", "ct_body_region_classification"):
        transfer = workflow(task, "train", encoder_weights=str(run / "encoder.safetensors"))
        transfer.initialize()
        loaded = transfer.network_def.state_dict()
        kernel = next(loaded[key] for key in ("encoder.encoder.conv1.weight", "conv1.weight") if key in loaded)
        assert torch.equal(kernel, pretrained["conv1.weight"])
    weights = str(run / "encoder.safetensors")
    override = {"encoder_weights": weights, "output_dir": str(tmp_path / "out")}
    carry_out(workflow(name, "inference", dataset_dir=str(region_store), **override))
    embeddings = read_embeddings(tmp_path / "out")
    assert embeddings.vectors.shape == (24, 512)
    assert np.isfinite(embeddings.vectors).all()
    assert embeddings.facts["content_hash"] == SliceStore(region_store).content_hash


def test_the_same_seed_gives_the_same_model(lits_folder: Path, tmp_path: Path):
    states = []
    for number in range(2):
        run = tmp_path / str(number)
        carry_out(
            workflow("ct_liver_segmentation", "train", dataset_dir=str(lits_folder), output_dir=str(run), epochs=1)
        )
        states.append(torch.load(run / "models" / "model.pt", weights_only=True))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
