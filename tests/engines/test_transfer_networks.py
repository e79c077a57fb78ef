"""Learning rates and freezing in the dense and detection networks: the encoder is what pretraining fills, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from monai_ssl_transfer.engines.transfer.schedules import (
    DecoderFirst,
    transfer_parameter_groups,
)
from monai_ssl_transfer.networks import build_dense, build_detector
from monai_ssl_transfer.networks.parts import encoder_modules, encoder_parameter_names
from monai_ssl_transfer.weights.key_maps import encoder_map

SIDE = 64
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear ResNet": lambda: build_dense("resnet18", "linear"),
    "linear ViT": lambda: build_dense("vit_tiny", "linear", image_size=SIDE),
    "DeepLabV3+": lambda: build_dense("resnet18", "deeplabv3plus"),
    "DPT": lambda: build_dense("vit_tiny", "dpt", image_size=SIDE),
    "ResNet detector": lambda: build_detector("resnet18", image_size=SIDE),
    "ViT detector": lambda: build_detector("vit_tiny", image_size=SIDE),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_parameter_is_in_one_group_and_the_encoder_is_what_is_loaded(kind: str) -> None:
    network = NETWORKS[kind]()
    everything = dict(network.named_parameters())
    found = encoder_map(network)
    loaded = {found.prefix + name for name in found.targets(network)} & everything.keys()
    assert encoder_parameter_names(network) == loaded
    assert 0 < len(loaded) < len(everything)
    groups = transfer_parameter_groups(network, 1e-3, 0.1, weight_decay=0.05)
    counted = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(counted) == sorted(id(parameter) for parameter in everything.values())
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in everything.items():
        assert rate[id(parameter)] == pytest.approx(1e-4 if name in loaded else 1e-3)


def loss_of(network: Any) -> Tensor:
    """A loss of two random images that reaches every part."""
    if not hasattr(network, "roi_heads"):
        return network(torch.randn(2, 3, SIDE, SIDE) + 2).square().mean()
    box = {"boxes": torch.tensor([[8.0, 8.0, 48.0, 56.0]]), "labels": torch.ones(1, dtype=torch.int64)}
    return sum(network([torch.rand(3, SIDE, SIDE), torch.rand(3, SIDE, SIDE)], [box, box]).values())


def train(network: nn.Module, handler: DecoderFirst, epochs: int) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step(engine: Engine, _: int) -> None:
        network.train()
        optimizer.zero_grad()
        loss_of(network).backward()
        optimizer.step()

    engine = Engine(step)
    handler.attach(engine)
    engine.run([0], epochs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_frozen_encoder_stays_bit_for_bit_and_is_let_go(kind: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    (prefix, encoder), *others = encoder_modules(network).items()
    assert others == []
    before = {name: value.clone() for name, value in network.state_dict().items()}
    handler = DecoderFirst(network, epochs=1)
    train(network, handler, epochs=1)
    after = network.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(name.startswith(prefix + ".") for name in moved)  # weights, running statistics and batch counters
    new = {name for name, _ in network.named_parameters() if not name.startswith(prefix + ".")}
    assert all(any(name.startswith(child + ".") for name in moved) for child in {each.split(".")[0] for each in new})
    handler._release()
    train(network, DecoderFirst(network, epochs=0), epochs=1)
    released = encoder.state_dict()
    changed = {name for name, value in released.items() if not torch.equal(value, before[f"{prefix}.{name}"])}
    stem = "conv1.weight" if "conv1.weight" in released else "patch_embed.proj.weight"
    assert stem in changed
    assert any("running_mean" in name for name in changed) == ("conv1.weight" in released)
