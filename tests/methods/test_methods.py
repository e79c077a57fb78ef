"""What holds for every method: protocol, exact resume, frozen copies, learning on a toy problem."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from tiny_encoder import TinyEncoder, patterned_views, random_views, tiny_vit
from torch import nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods import (
    DINO,
    MAE,
    BarlowTwins,
    DINOHeadOptions,
    DINOSchedule,
    DINOv2,
    MAEDecoderOptions,
    MoCoV2,
    MoCoV3,
    SampleKeys,
    SimCLR,
    SSLMethod,
    parameter_groups,
)
from monai_ssl_transfer.views.recipes import recipe

Builder = Callable[[nn.Module], SSLMethod]
BUILDERS: dict[str, Builder] = {
    "simclr": lambda encoder: SimCLR(encoder, hidden_dim=32, output_dim=8),
    "simclr with three layers": lambda encoder: SimCLR(encoder, hidden_dim=32, output_dim=8, layers=3),
    "simclr of radnet": lambda encoder: SimCLR(encoder, hidden_dim=32, output_dim=8, radnet_head=True),
    "moco": lambda encoder: MoCoV2(encoder, queue_size=20, hidden_dim=32, output_dim=8, momentum=0.9),
    "moco with groups": lambda encoder: MoCoV2(encoder, 20, hidden_dim=32, output_dim=8, batch_norm_groups=3),
    "moco in half precision": lambda encoder: MoCoV2(encoder, 20, 0.9, 0.2, 32, 8, queue_precision="fp16"),
    "moco v3": lambda encoder: MoCoV3(encoder, momentum=0.9, hidden_dim=32, output_dim=8),
    "barlow twins": lambda encoder: BarlowTwins(encoder, hidden_dim=32, output_dim=8),
    "dino": lambda encoder: DINO(
        encoder,
        prototypes=24,
        head=DINOHeadOptions(hidden_dim=32, bottleneck_dim=8),
        schedule=DINOSchedule(momentum=0.9, warmup=0.5, teacher_temperature=0.07, freeze_last_layer=0.2),
    ),
    "mae": lambda encoder: MAE(encoder, decoder=MAEDecoderOptions(width=16, depth=1, heads=2)),
    "dinov2": lambda encoder: DINOv2(
        encoder,
        prototypes=24,
        head=DINOHeadOptions(hidden_dim=32, bottleneck_dim=8, learned_lengths=True),
        schedule=DINOSchedule(momentum=0.9, warmup=0.5, teacher_temperature=0.07, freeze_last_layer=0.2),
    ),
}
VITS = ("mae", "dinov2")
STEPS = 10


def built(name: str, seed: int = 0) -> SSLMethod:
    torch.manual_seed(seed)
    return BUILDERS[name](tiny_vit() if name in VITS else TinyEncoder()).train()


def sizes_of(method: SSLMethod) -> tuple[int, ...]:
    if isinstance(method, MAE):
        return (16,)
    return (16, 16, 8) if isinstance(method, DINO) else (16, 16)


def keys_of(step: int, batch: int = 6) -> SampleKeys:
    return SampleKeys(seed=0, epoch=step, sample=torch.arange(batch))


def optimizer_of(method: SSLMethod, lr: float = 3e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameter_groups(method, 0.05), lr=lr)


def train(method: SSLMethod, optimizer: torch.optim.Optimizer, steps: range, views: Callable = random_views) -> list:
    losses = []
    for step in steps:
        batch = views(seed=step, sizes=sizes_of(method))
        output = method(batch, step / STEPS, keys_of(step, len(batch[0])))
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        method.after_step(step / STEPS)
        losses.append(output["loss"].item())
    return losses


@pytest.mark.parametrize("name", BUILDERS)
def test_output_follows_the_protocol(name: str) -> None:
    method = built(name)
    output = method(random_views(0, sizes_of(method)), 0.0, keys_of(0))
    assert output["loss"].requires_grad
    assert output["loss"].ndim == 0
    assert output["embedding"].shape == (6, 16)
    assert not any(value.requires_grad for key, value in output.items() if key != "loss")
    assert all(value.ndim == 0 for key, value in output.items() if key != "embedding")


@pytest.mark.parametrize("name", ["simclr", "moco", "moco v3", "barlow twins", "dino"])
def test_embedding_is_the_encoders_output_of_view_0(name: str) -> None:
    method = built(name).eval()
    views = random_views(0, (16, 16, 8) if name == "dino" else (16, 16))
    assert torch.allclose(method(views, 0.0)["embedding"], method.encoder(views[0]), atol=1e-6)


@pytest.mark.parametrize("name", BUILDERS)
def test_resumed_run_is_bitwise_the_same(name: str) -> None:
    whole, interrupted = built(name), built(name)
    optimizer = optimizer_of(whole)
    losses = train(whole, optimizer, range(STEPS))

    first = optimizer_of(interrupted)
    train(interrupted, first, range(5))
    file = io.BytesIO()
    torch.save({"method": interrupted.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = built(name, seed=99)  # other random start: everything must come from the file
    second = optimizer_of(resumed)
    resumed.load_state_dict(state["method"])
    second.load_state_dict(state["optimizer"])
    assert train(resumed, second, range(5, STEPS)) == losses[5:]
    for (key, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize("name", BUILDERS)
def test_optimizer_gets_the_trained_network_and_nothing_else(name: str) -> None:
    method = built(name)
    decayed, free = parameter_groups(method, 0.3)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): key for key, parameter in method.named_parameters()}
    chosen = {names[id(p)] for p in decayed["params"] + free["params"]}
    copies = ("momentum_", "teacher_")
    fixed = {"dino": {"projection_head.last_layer.weight_g"}, "mae": {"encoder.pos_embed"}}.get(name, set())
    assert chosen == {key for key, _ in method.named_parameters() if not key.startswith(copies)} - fixed
    assert len(chosen) == len(decayed["params"]) + len(free["params"])
    assert all(p.ndim > 1 for p in decayed["params"])
    small = ("blocks.0.attn.qkv.bias", "norm.weight") if name in VITS else ("layers.0.bias", "layers.1.weight")
    assert {names[id(p)] for p in free["params"]} >= {f"encoder.{key}" for key in small}


@pytest.mark.parametrize("name", BUILDERS)
def test_one_step_trains_the_encoder(name: str) -> None:
    method = built(name)
    before = copy.deepcopy(method.encoder.state_dict())
    train(method, optimizer_of(method), range(1))
    after = method.encoder.state_dict()
    assert {key for key in before if torch.equal(before[key], after[key])} == (
        {"pos_embed"} if name == "mae" else set()
    )


@pytest.mark.parametrize(("name", "prefix", "momentum"), [("moco", "momentum_", 0.9), ("dino", "teacher_", 0.9)])
def test_copies_start_equal_and_follow(name: str, prefix: str, momentum: float) -> None:
    method = built(name)
    for part in ("encoder", "projection_head"):
        own, follower = getattr(method, part).state_dict(), getattr(method, prefix + part).state_dict()
        assert all(torch.equal(own[key], follower[key]) for key in own)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    train(method, optimizer_of(method), range(1))
    after = method.state_dict()
    for key, _ in method.named_parameters():
        if key.startswith(prefix):
            trained = after[key.removeprefix(prefix)]
            expected = momentum * before[key].double() + (1 - momentum) * trained.double()
            assert torch.allclose(after[key].double(), expected, atol=1e-6), key
    statistics = f"{prefix}encoder.layers.1.running_mean"  # its own, from its own pass, not the trained network's
    assert not torch.equal(after[statistics], before[statistics])
    assert not torch.equal(after[statistics], after[statistics.removeprefix(prefix)])


@pytest.mark.parametrize(("name", "fall"), [("simclr", 0.8), ("moco", 0.95), ("moco v3", 0.9), ("barlow twins", 0.8)])
def test_loss_falls_on_a_toy_problem(name: str, fall: float) -> None:
    method = built(name)
    losses = train(method, optimizer_of(method), range(25), views=patterned_views)
    assert sum(losses[-3:]) < fall * sum(losses[:3])
    assert sum(losses[-3:]) / 3 < method.collapsed_loss - 0.3


def test_dino_student_learns_what_a_still_teacher_says() -> None:
    torch.manual_seed(0)
    still = DINOSchedule(momentum=1.0, centre_momentum=1.0, freeze_last_layer=0.0)
    method = DINO(TinyEncoder(), 24, still, DINOHeadOptions(hidden_dim=32, bottleneck_dim=8))
    optimizer = optimizer_of(method)
    before = copy.deepcopy(method.teacher_projection_head.state_dict())
    losses = train(method, optimizer, range(40), views=patterned_views)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert all(torch.equal(before[key], value) for key, value in method.teacher_projection_head.state_dict().items())


@pytest.mark.parametrize("name", ["simclr", "moco", "moco v3", "barlow twins", "dino"])
def test_collapsed_encoder_has_the_collapsed_loss(name: str) -> None:
    method = built(name).eval()
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    for follower in ("momentum_projection_head", "teacher_projection_head"):
        if hasattr(method, follower):
            for layer in getattr(method, follower).layers.parameters():
                layer.data.zero_()
    if isinstance(method, DINO):
        method.projection_head.last_layer.weight_v.data.fill_(1.0)
    if isinstance(method, SimCLR):  # all equal and not zero
        method.projection_head.layers[-1].bias.data.fill_(1.0)
    if isinstance(method, MoCoV2):
        method.projection_head.layers[-1].bias.data.fill_(1.0)
        method.momentum_projection_head.layers[-1].bias.data.fill_(1.0)
        method.queue.keys.fill_(8**-0.5)
    loss = method(random_views(0), 0.5)["loss"].item()
    assert loss == pytest.approx(method.collapsed_loss, rel=1e-5)


@pytest.mark.parametrize("name", ["simclr", "moco", "moco v3", "barlow twins", "dino"])
def test_bf16_networks_have_a_float32_loss(name: str) -> None:
    method = built(name)
    full = built(name)(random_views(0), 0.0)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(random_views(0), 0.0)
    assert output["loss"].dtype == torch.float32
    assert output["loss"].item() == pytest.approx(full.item(), rel=0.1)
    output["loss"].backward()
    assert all(parameter.dtype == torch.float32 for parameter in method.parameters())


@pytest.mark.parametrize(
    ("name", "recipe_name"),
    [
        ("simclr", "simclr"),
        ("moco", "moco_v2"),
        ("moco v3", "moco_v3"),
        ("barlow twins", "barlow_twins"),
        ("dino", "dino"),
    ],
)
def test_wrong_recipe_is_refused(name: str, recipe_name: str) -> None:
    method = built(name)
    with pytest.raises(TrainingError, match="views per image but the recipe makes 1") as refusal:
        method(random_views(0, (16,)), 0.0)
    assert f"--recipe_name {recipe_name}." in str(refusal.value)
    assert recipe(recipe_name)
    with pytest.raises(TrainingError, match="at least 2 images"):
        method(random_views(0, batch=1), 0.0)


def test_too_many_groups_are_refused() -> None:
    with pytest.raises(TrainingError, match="too small for 3 batch-norm groups"):
        built("moco with groups")(random_views(0, batch=5), 0.0)
