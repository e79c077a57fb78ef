"""Every protocol in every task bundle, over a ResNet and a ViT; one of them carried through on generated data."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from monai_ssl_transfer.errors import user_error_of
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.networks.adapters import applied_adaptation, merged_state
from monai_ssl_transfer.networks.parts import inner_names
from monai_ssl_transfer.weights.adapter_file import load_adapter
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.save import save_encoder

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = sorted(path.stem for path in (ROOT / "configs" / "protocols").glob("*.json"))
NETWORKS: dict[str, tuple[str, ...]] = {
    "ct_body_region_classification": ("classifier_resnet18", "classifier_vit_tiny"),
    "ct_liver_segmentation": ("unet_resnet18", "unet_vit_tiny"),
    "endoscopy_angiodysplasia_classification": ("classifier_resnet18", "classifier_vit_tiny"),
    "endoscopy_angiodysplasia_segmentation": ("deeplabv3plus_resnet18", "dpt_vit_tiny"),
    "endoscopy_depth_estimation": ("deeplabv3plus_resnet18", "dpt_vit_tiny"),
    "endoscopy_finding_classification": ("classifier_resnet18", "classifier_vit_tiny"),
    "endoscopy_polyp_detection": ("detector_resnet18", "detector_vit_tiny"),
    "endoscopy_polyp_segmentation": ("unet_resnet18", "unet_vit_tiny"),
    "image_classification": ("classifier_resnet18", "classifier_vit_tiny"),
    "volume_segmentation": ("unet_resnet18",),
    "image_segmentation": ("unet_resnet18", "unet_vit_tiny"),
}
ADAPTED = {"lora": "LoRA", "bitfit": "BitFit", "norm_only": "NormOnly", "last_blocks": "LastBlocks"}


def read(bundle: str, *overlays: str, **override: Any) -> ConfigParser:
    parser = ConfigParser()
    files = [f"bundles/{bundle}/configs/train.json", *(f"configs/{one}.json" for one in overlays)]
    parser.read_config([str(ROOT / file) for file in files])
    for name, value in ({"image_size": 64, "epochs": 10, "device": torch.device("cpu")} | override).items():
        parser[name] = value
    return parser


@lru_cache
def built(bundle: str, network: str) -> nn.Module:
    torch.manual_seed(0)
    return read(bundle, f"networks/{network}").get_parsed_content("network_def")


def test_all_task_bundles_are_here() -> None:
    with_adaptation = {
        path.parents[1].name
        for path in (ROOT / "bundles").glob("*/configs/train.json")
        if "adaptation" in json.loads(path.read_text())
    }
    assert NETWORKS.keys() == with_adaptation


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bundle", NETWORKS)
def test_every_protocol_is_taken_by_every_bundle(bundle: str, protocol: str, tmp_path: Path) -> None:
    for name in NETWORKS[bundle]:
        network = copy.deepcopy(built(bundle, name))
        expected = {key for key, one in network.named_parameters() if one.requires_grad}
        # given after another protocol, it leaves nothing of that one behind
        parser = read(bundle, "protocols/lora", f"protocols/{protocol}", network_def=network, output_dir=str(tmp_path))
        parser.get_parsed_content("initialize")
        applied = applied_adaptation(network)
        assert (applied.name if applied else None) == ADAPTED.get(protocol)
        learning = {key for key, one in network.named_parameters() if one.requires_grad}
        inner = inner_names(network)
        assert {key for key in learning if key not in inner} == {key for key in expected if key not in inner}
        inside = {key for key in learning if key in inner}
        assert inside
        assert (learning == expected) == (protocol not in ADAPTED)
        if protocol == "lora":
            assert sum(key.endswith(".lora.A") for key in inside) == (36 if "vit" in name else 19)
        optimizer = parser.get_parsed_content("optimizer")
        optimized = {id(one) for group in optimizer.param_groups for one in group["params"]}
        assert optimized == {id(one) for key, one in network.named_parameters() if key in learning}
        rates = {group["lr"] for group in optimizer.param_groups if group["name"].startswith("encoder")}
        assert len(rates) == (
            {"vit": 14, "res": 5}["vit" if "vit" in name else "res"] if protocol == "layer_decay" else 1
        )
        epochs = parser.get_parsed_content("decoder_first_epochs")
        assert epochs == {"frozen": 10, "decoder_first": 2}.get(protocol, 0)


def test_every_protocol_says_all_of_how_the_encoder_learns() -> None:
    for protocol in PROTOCOLS:
        overlay = json.loads((ROOT / "configs" / "protocols" / f"{protocol}.json").read_text())
        assert {"_desc_", "adaptation", "layer_decay", "decoder_first_epochs"} <= overlay.keys(), protocol


def test_a_target_that_the_encoder_does_not_have_is_refused() -> None:
    network = copy.deepcopy(built("endoscopy_polyp_segmentation", "unet_resnet18"))
    parser = read("endoscopy_polyp_segmentation", "protocols/lora", network_def=network, lora_targets=["qkv"])
    with pytest.raises(RuntimeError) as refused:
        parser.get_parsed_content("initialize")
    assert "choose from conv, layer1" in str(user_error_of(refused.value))


def run(store: Path, out: Path, encoder: Path | None, kind: str, *protocol: str, **override: Any) -> ConfigWorkflow:
    bundle = "ct_body_region_classification"
    names = {"train": ["train"], "evaluate": ["train", "evaluate"]}[kind]
    files = [ROOT / "bundles" / bundle / "configs" / f"{name}.json" for name in names]
    overlays = ["networks/classifier_vit_tiny", *(f"protocols/{one}" for one in protocol)]
    files += [ROOT / "configs" / f"{name}.json" for name in overlays]
    flow = ConfigWorkflow(
        [str(file) for file in files], logging_file=False, workflow_type="train", dataset_dir=str(store),
        output_dir=str(out), encoder_weights=None if encoder is None else str(encoder), num_workers=0,
        device=torch.device("cpu"), image_size=32, batch_size=6, **override,
    )  # fmt: skip
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


def test_a_run_with_lora_leaves_a_plain_model_and_a_small_adapter(region_store: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = EncoderCard(architecture="vit_tiny", image_size=32, channels="windows")
    encoder = save_encoder(build_encoder("vit_tiny", 3, 32), tmp_path / "encoder", card)
    flow = run(region_store, tmp_path / "run", encoder, "train", "lora", epochs=2, lora_rank=4)
    models = tmp_path / "run" / "models"
    assert sorted(path.name for path in models.iterdir()) == ["adapter.safetensors", "model.pt"]
    model = torch.load(models / "model.pt", weights_only=True)
    assert not any("lora" in name for name in model)
    overlay = "networks/classifier_vit_tiny"
    fresh = read("ct_body_region_classification", overlay, image_size=32).get_parsed_content("network_def")
    again = merged_state(load_adapter(fresh, models / "adapter.safetensors", encoder))
    assert again.keys() == model.keys()
    assert all(torch.equal(tensor, model[name]) for name, tensor in again.items())
    assert flow.parser.get_parsed_content("train#trainer").state.epoch == 2
    run(region_store, tmp_path / "eval", None, "evaluate", model_file=str(models / "model.pt"))
    assert json.loads((tmp_path / "eval" / "summary.json").read_text())["n"] > 0
    # another run goes on from the adapter
    saved = "monai_ssl_transfer.weights.adapter_file.SavedAdaptation"
    adaptation = {"_target_": saved, "file": str(models / "adapter.safetensors")}
    run(region_store, tmp_path / "more", encoder, "train", "lora", epochs=1, adaptation=adaptation)
    assert (tmp_path / "more" / "models" / "adapter.safetensors").is_file()


def test_a_detector_learns_one_step_with_bitfit() -> None:
    network = copy.deepcopy(built("endoscopy_polyp_detection", "detector_resnet18"))
    for name, one in network.named_parameters():
        if name.endswith("bn2.weight"):
            nn.init.ones_(one)  # a random ResNet of timm begins with closed branches, behind which nothing learns
    parser = read("endoscopy_polyp_detection", "protocols/bitfit", network_def=network)
    parser.get_parsed_content("adaptation").apply(network)
    optimizer = parser.get_parsed_content("optimizer")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    box = {"boxes": torch.tensor([[8.0, 8.0, 48.0, 56.0]]), "labels": torch.ones(1, dtype=torch.int64)}
    network.train()
    sum(network([torch.rand(3, 64, 64), torch.rand(3, 64, 64)], [box, box]).values()).backward()
    optimizer.step()
    inner = inner_names(network)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in moved if name in inner} == {
        name for name, _ in network.named_parameters() if name in inner and name.endswith("bias")
    }
