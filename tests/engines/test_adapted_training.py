"""Rates by layer and freezing by epoch, with and without an adaptation; two processes train what one would."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from monai_ssl_transfer.engines.transfer.fine_tuning import BestModelSaver, save_model
from monai_ssl_transfer.engines.transfer.schedules import DecoderFirst, transfer_parameter_groups, transfer_schedule
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks import build_classifier, build_dense, build_detector, build_unet
from monai_ssl_transfer.networks.adapters import BitFit, LastBlocks, LoRA, adapt
from monai_ssl_transfer.networks.parts import inner_names

SIDE = 32


def rates(network: nn.Module, **settings: Any) -> dict[str, float]:
    names = {id(one): name for name, one in network.named_parameters()}
    groups = transfer_parameter_groups(network, 0.1, **settings)
    return {names[id(one)]: group["lr"] for group in groups for one in group["params"]}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            lambda: build_classifier("vit_tiny", image_size=SIDE),  # MONAI's names
            {
                "cls_token": 13, "patch_embedding.position_embeddings": 13, "blocks.0.norm1.weight": 12,
                "patch_embedding.patch_embeddings.weight": 13, "blocks.1.mlp.linear1.weight": 11,
                "blocks.10.attn.out_proj.bias": 2, "blocks.11.attn.qkv.weight": 1, "norm.weight": 0,
            },
        ),
        (
            lambda: build_dense("vit_tiny", "dpt", image_size=SIDE),
            {
                "encoder.encoder.pos_embed": 13, "encoder.encoder.patch_embed.proj.weight": 13,
                "encoder.encoder.blocks.0.attn.qkv.weight": 12, "encoder.encoder.blocks.11.mlp.fc2.bias": 1,
                "encoder.encoder.norm.bias": 0,
            },
        ),
        (
            lambda: build_unet("resnet18"),
            {
                "encoder.encoder.conv1.weight": 5, "encoder.encoder.bn1.bias": 5,
                "encoder.encoder.layer1.0.conv1.weight": 4, "encoder.encoder.layer2.1.bn2.weight": 3,
                "encoder.encoder.layer3.0.downsample.0.weight": 2, "encoder.encoder.layer4.1.conv2.weight": 1,
            },
        ),
        (lambda: build_detector("resnet18", image_size=SIDE), {"backbone.body.conv1.weight": 5}),
    ],
    ids=["MONAI ViT", "DPT", "U-Net", "detector"],
)  # fmt: skip
def test_each_layer_learns_more_slowly_than_the_next(network: Any, expected: dict[str, int]) -> None:
    built = network()
    found = rates(built, encoder_learning_rate_factor=0.5, layer_decay=0.75)
    for name, times in expected.items():
        assert found[name] == pytest.approx(0.1 * 0.5 * 0.75**times), name
    inner = inner_names(built)
    assert {rate for name, rate in found.items() if name not in inner} == {0.1}
    trained = {name for name, one in built.named_parameters() if one.requires_grad}
    assert found.keys() == trained
    levels = 5 if "ResNet" in type(built).__name__ or any("layer4" in name for name in found) else 13
    assert len({rate for name, rate in found.items() if name in inner}) == levels + (levels == 13)


def test_layer_decay_of_an_adapted_network_and_its_schedule() -> None:
    network = adapt(build_classifier("vit_tiny", image_size=SIDE), LoRA(2))
    found = rates(network, layer_decay=0.5)
    assert found["blocks.10.attn.qkv.lora.A"] == pytest.approx(0.1 * 0.25)
    assert "blocks.10.attn.qkv.weight" not in found  # frozen parameters are in no group
    optimizer = torch.optim.AdamW(transfer_parameter_groups(network, 0.1, layer_decay=0.5), lr=0.1)
    before = [group["lr"] for group in optimizer.param_groups]
    transfer_schedule(optimizer, steps=10, warmup_steps=2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate / 2 for rate in before])


def test_a_layer_decay_that_makes_no_sense_is_refused() -> None:
    for value in (0.0, 1.5):
        with pytest.raises(TrainingError, match="layer_decay"):
            transfer_parameter_groups(build_unet("resnet18"), 0.1, layer_decay=value)
    with pytest.raises(TrainingError, match="layer_decay 1"):
        transfer_parameter_groups(nn.Sequential(nn.Linear(2, 2)), 0.1, layer_decay=0.5)
    assert transfer_parameter_groups(nn.Sequential(nn.Linear(2, 2)), 0.1)


@pytest.mark.parametrize(
    ("encoder", "adaptation"), [("vit_tiny", LoRA(2)), ("resnet18", BitFit()), ("resnet18", LastBlocks())]
)
def test_decoder_first_gives_back_what_the_adaptation_lets_learn(encoder: str, adaptation: Any) -> None:
    torch.manual_seed(0)
    network = adapt(build_classifier(encoder, classes=3, image_size=SIDE), adaptation)
    pattern = {name: one.requires_grad for name, one in network.named_parameters()}
    inner = inner_names(network)
    optimizer = torch.optim.SGD(transfer_parameter_groups(network, 0.05), lr=0.05)
    states = [copy.deepcopy(network.state_dict())]

    def step(engine: Engine, seed: int) -> None:
        network.train()
        optimizer.zero_grad()
        network(torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizer.step()

    engine = Engine(step)
    DecoderFirst(network, epochs=1).attach(engine)
    for epoch in (1, 2):
        engine.run([0, 1], max_epochs=epoch)
        states.append(copy.deepcopy(network.state_dict()))
    first, second = (
        {name for name in states[0] if not torch.equal(states[at][name], states[at + 1][name])} for at in (0, 1)
    )
    assert first
    assert not first & inner.keys()
    assert {name: one.requires_grad for name, one in network.named_parameters()} == pattern
    assert {name for name in second if name in pattern} == {
        name for name, learns in pattern.items() if learns and not name.endswith("lora.A")
    } | {name for name in second if name.endswith("lora.A")}
    assert any(name in inner for name in second)
    statistics = {name for name in second if "running" in name}
    assert all(name.startswith("layer4.") for name in statistics)
    assert bool(statistics) == isinstance(adaptation, LastBlocks)


def test_decoder_first_leaves_frozen_what_was_frozen_without_an_adaptation() -> None:
    network = build_classifier("vit_tiny", image_size=SIDE)
    handler = DecoderFirst(network, epochs=1)
    handler._freeze()
    handler._release()
    frozen = {name for name, one in network.named_parameters() if not one.requires_grad}
    assert frozen
    assert all("norm_cross_attn" in name for name in frozen)


def adapted_steps(network: nn.Module, wrapped: nn.Module, part: slice) -> None:
    optimizer = torch.optim.SGD(transfer_parameter_groups(network, 0.05, layer_decay=0.75), lr=0.05)
    for seed in range(3):
        wrapped.train()
        optimizer.zero_grad()
        x = torch.randn(4, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        wrapped(x[part]).square().mean().backward()
        optimizer.step()


def adapted_network(seed: int) -> nn.Module:
    torch.manual_seed(0)
    network = build_classifier("vit_tiny", classes=3, image_size=SIDE).double()
    torch.manual_seed(seed)  # a bundle's processes draw A differently; the first one's is everybody's
    return adapt(network, LoRA(2))


def one_of_two(rank: int, folder: str) -> None:
    os.environ.update(OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    network = adapted_network(seed=rank)
    adapted_steps(network, DistributedDataParallel(network), slice(2 * rank, 2 * rank + 2))
    torch.save(network.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    alone = adapted_network(seed=0)
    before = copy.deepcopy(alone.state_dict())
    adapted_steps(alone, alone, slice(None))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, tensor in alone.state_dict().items():
            assert torch.allclose(found[name], tensor, rtol=1e-9, atol=1e-12), name
    assert any(not torch.equal(tensor, before[name]) for name, tensor in found.items() if name.endswith("lora.A"))


def test_an_adapter_does_not_stay_beside_the_model_of_another_run(tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    adapted = build_classifier("resnet18", classes=2)
    adapt(adapted, BitFit())
    save_model(adapted, model)
    assert (tmp_path / "adapter.safetensors").is_file()
    save_model(build_classifier("resnet18", classes=2), model)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_replacing_the_model_of_an_earlier_run_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Linear(2, 2)
    for _ in range(2):
        validation = Engine(lambda engine, batch: None)
        validation.add_event_handler(Events.COMPLETED, lambda engine: engine.state.metrics.update(accuracy=0.5))
        BestModelSaver(network, tmp_path / "model.pt", "accuracy").attach(validation)
        validation.run([0])
    assert caplog.text.count("of an earlier run is replaced") == 1
