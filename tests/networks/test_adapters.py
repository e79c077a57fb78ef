"""What an adaptation lets learn learns, all of it; what it freezes stays bit for bit; merged it computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks import build_classifier, build_dense, build_detector, build_projected_classifier
from monai_ssl_transfer.networks.adapters import (
    BitFit,
    LastBlocks,
    LoRA,
    NormOnly,
    adapt,
    applied_adaptation,
    merged_state,
    trained_parameters,
)
from monai_ssl_transfer.networks.parts import inner_names
from monai_ssl_transfer.weights.key_maps import encoder_map

SIDE = 32
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MONAI ResNet": lambda: build_classifier("resnet18", classes=3),
    "MONAI ViT": lambda: build_classifier("vit_tiny", classes=3, image_size=SIDE),
    "linear timm ViT": lambda: build_dense("vit_tiny", "linear", image_size=SIDE),
}
ADAPTATIONS: dict[str, Any] = {
    "LoRA": LoRA(4, 8.0, ("qkv", "proj", "fc1", "fc2", "conv")),
    "LoRA with biases": LoRA(2, 8.0, ("qkv", "layer3"), biases=True),
    "BitFit": BitFit(),
    "NormOnly": NormOnly(),
    "LastBlocks": LastBlocks(2, 1),
}


def train(network: nn.Module, steps: int) -> list[dict[str, Tensor]]:
    """Train in float64 as a trainer does; the gradients of every step."""
    trained = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.003)
    gradients = []
    for number in range(steps):
        network.train()
        optimizer.zero_grad()
        x = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(number)) + 1
        network(x).square().mean().backward()
        gradients.append({name: one.grad for name, one in network.named_parameters() if one.grad is not None})
        optimizer.step()
    return gradients


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_adapted_learns_and_the_rest_stays_bit_for_bit(kind: str, adaptation: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]().double()
    plain = copy.deepcopy(network)
    adapt(network, ADAPTATIONS[adaptation])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gradients = train(network, 3)
    learning = {name for name, one in network.named_parameters() if one.requires_grad}
    # LoRA's A has no gradient in the first step, because B is 0 then; in the second everything has one.
    first = {name for name in learning if not name.endswith(".lora.A")}
    assert gradients[1].keys() == learning
    assert all(bool(gradients[0][name].any()) for name in first)
    assert all(bool(gradients[1][name].any()) for name in learning)
    after, applied = network.state_dict(), applied_adaptation(network)
    assert applied is not None
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert learning <= moved
    assert not moved & applied.frozen  # running statistics and batch counters as well
    in_encoder = inner_names(network)
    assert {name for name in after if name in in_encoder} - learning - moved <= applied.frozen
    statistics = {name for name in moved if "running" in name and name in in_encoder}
    assert bool(statistics) == (adaptation == "LastBlocks" and kind == "MONAI ResNet")
    assert all(name.startswith("layer4.") for name in statistics)
    merged = merged_state(network)
    plain.load_state_dict(merged)
    x = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)
    with torch.no_grad():
        adapted, expected = network.eval()(x), plain.eval()(x)
    assert float((adapted - expected).abs().max() / expected.abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("kind", "adaptation", "number"),
    [
        # a layer of in x out has rank x (in + out); vit_tiny: width 192, 12 blocks
        ("MONAI ViT", LoRA(4, targets=("qkv", "proj", "fc1", "fc2")), 12 * 4 * (192 * 4 + 192 * 2 + 192 * 5 * 2)),
        ("MONAI ViT", LoRA(4, targets=("qkv",), biases=True), 12 * (4 * 192 * 4 + 3 * 192)),
        ("linear timm ViT", LoRA(4, targets=("proj", "conv")), 12 * 4 * 192 * 2),
        # per block norm1, qkv, proj, norm2, fc1, fc2: 1 + 3 + 1 + 1 + 4 + 1; then the patches and the last norm
        ("MONAI ViT", BitFit(), 192 * (12 * 11 + 2)),
        ("linear timm ViT", BitFit(), 192 * (12 * 11 + 2)),
        ("MONAI ViT", NormOnly(), 2 * 192 * 25),
        ("MONAI ViT", LastBlocks(2), 2 * (12 * 192**2 + 13 * 192) + 2 * 192),
        # layer4 of ResNet18: convolutions 256-512, 512-512, 512-512, 512-512 of 3x3 and 256-512 of 1x1
        ("MONAI ResNet", LoRA(4, targets=("layer4",)), 4 * (9 * 256 + 512 + 3 * (9 * 512 + 512) + 256 + 512)),
        ("MONAI ResNet", BitFit(), 64 * 5 + 5 * (128 + 256 + 512)),
        ("MONAI ResNet", NormOnly(), 2 * (64 * 5 + 5 * (128 + 256 + 512))),
        ("MONAI ResNet", LastBlocks(), 9 * (256 * 512 + 3 * 512**2) + 256 * 512 + 2 * 5 * 512),
    ],
)
def test_the_number_of_trained_parameters(kind: str, adaptation: Any, number: int) -> None:
    network = adapt(NETWORKS[kind](), adaptation)
    head = sum(one.numel() for name, one in network.named_parameters() if name not in inner_names(network))
    assert trained_parameters(network)[0] - head == number


def test_bitfit_trains_exactly_the_biases() -> None:
    network = adapt(NETWORKS["MONAI ViT"](), BitFit())
    encoder = {name: one.requires_grad for name, one in network.named_parameters() if name in inner_names(network)}
    unused = {name for name in encoder if "norm_cross_attn" in name}
    assert {name for name, learns in encoder.items() if learns} == {
        name for name in encoder if name.endswith("bias") and name not in unused
    }


def test_an_adapted_network_is_still_recognised() -> None:
    """Names of the encoder's tensors stay; the additions are beside them."""
    for kind, build in NETWORKS.items():
        torch.manual_seed(0)
        network = build()
        before = encoder_map(network).read(network)
        adapt(network, ADAPTATIONS["LoRA"])
        after = encoder_map(network).read(network)
        assert {name: one.shape for name, one in after.items() if ".lora." not in name} == {
            name: one.shape for name, one in before.items()
        }, kind


def test_a_copy_has_a_life_of_its_own() -> None:
    torch.manual_seed(0)
    network = adapt(NETWORKS["MONAI ResNet"]().double(), ADAPTATIONS["LoRA"])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    twin = copy.deepcopy(network)
    train(twin, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    moved = {name for name, tensor in twin.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.endswith("lora.A") for name in moved)
    assert not any("running" in name for name in moved)


def test_dropout_is_for_training_only_and_bfloat16_works() -> None:
    torch.manual_seed(0)
    network = adapt(NETWORKS["MONAI ViT"](), LoRA(4, 8.0, ("qkv",), dropout=0.5))
    for name, one in network.named_parameters():
        if name.endswith("lora.B"):
            nn.init.normal_(one, std=0.1)
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        network.eval()
        exact = network(x)
        assert torch.equal(network(x), exact)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(network(x).float(), exact, atol=0.05 * float(exact.abs().max()))
        network.train()
        assert not torch.equal(network(x), network(x))


def test_activation_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    network: Any = adapt(NETWORKS["linear timm ViT"]().double(), LoRA(4, dropout=0.3))
    twin: Any = copy.deepcopy(network)
    twin.encoder.set_grad_checkpointing(True)
    found = []
    for one in (network, twin):
        torch.manual_seed(1)
        found.append(train(one, 2)[1])
    assert any(name.endswith("lora.A") for name in found[0])
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())


def test_the_projection_head_and_detectors_are_adapted_too() -> None:
    projected = adapt(build_projected_classifier("resnet18", hidden_dim=8), LastBlocks(stages=1))
    learning = {name for name, one in projected.named_parameters() if one.requires_grad}
    assert {".".join(name.split(".")[:3]) for name in learning if "body" in name} == {"encoder.body.layer4"}
    assert "encoder.projection_head.0.weight" in learning
    detector = adapt(build_detector("resnet18", image_size=SIDE, frozen_batch_norm=True), LoRA(2))
    assert sum(name.endswith("lora.A") for name, _ in detector.named_parameters()) == 19


@pytest.mark.parametrize(
    ("kind", "adaptation", "message"),
    [
        ("MONAI ResNet", LoRA(targets=("qkv",)), "targets qkv match no layer.*choose from conv, layer1"),
        ("MONAI ViT", LoRA(targets=("layer4",)), "targets layer4 match no layer.*choose from qkv, proj"),
        ("MONAI ViT", LoRA(targets=("qkv", "query")), "targets query match no layer"),
        ("MONAI ViT", LoRA(rank=0), "lora_rank"),
        ("MONAI ViT", LoRA(rank="8"), "rank '8' must be a whole number.*lora_rank"),
        ("MONAI ResNet", LoRA(rank=2.5), "rank 2.5 must be a whole number"),
        ("MONAI ResNet", LoRA(rank=True), "rank True must be a whole number"),
        ("MONAI ResNet", LoRA(alpha="16"), "alpha '16' must be a number.*lora_alpha"),
        ("MONAI ResNet", LoRA(dropout="0.1"), "dropout '0.1' must be a number.*lora_dropout"),
        ("MONAI ViT", LoRA(targets="qkv"), "targets 'qkv' must be a list"),
        ("MONAI ViT", LastBlocks(blocks="4"), "last '4' blocks"),
        ("MONAI ViT", LastBlocks(blocks=13), "give 1 to 12 last_blocks"),
        ("MONAI ResNet", LastBlocks(stages=0), "give 1 to 4 last_stages"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, adaptation: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        adapt(NETWORKS[kind](), adaptation)


def test_no_second_adaptation_and_none_without_anything_to_learn() -> None:
    with pytest.raises(TrainingError, match="adapted by BitFit already"):
        adapt(adapt(NETWORKS["MONAI ResNet"](), BitFit()), LoRA())
    for adaptation in (BitFit(), NormOnly()):
        with pytest.raises(TrainingError, match="without frozen_batch_norm"):
            adapt(build_detector("resnet18", image_size=SIDE, frozen_batch_norm=True), adaptation)
    with pytest.raises(TrainingError, match="neither a ViT's blocks nor a ResNet's stages"):
        adapt(nn.Sequential(nn.Linear(2, 2)), LoRA())
