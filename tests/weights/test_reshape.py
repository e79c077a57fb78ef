"""Changes of shape keep what they promise to keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor
from torch.nn import functional as F

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.converting import reshape
from monai_ssl_transfer.weights.converting.reshape_attention import fuse_qkv
from monai_ssl_transfer.weights.converting.reshape_volume import inflate

SEEDS = st.integers(0, 2**20)
State = dict[str, Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small_vit(seed: int = 0, registers: int = 0) -> VisionTransformer:
    """A ViT of 4 x 4 patches with LayerScale in which every parameter is random."""
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=3, num_classes=0, init_values=0.1,
        reg_tokens=registers, no_embed_class=registers > 0,
    ).double()  # fmt: skip
    with torch.no_grad():
        for number, parameter in enumerate(vit.parameters()):
            parameter.copy_(0.5 * random(*parameter.shape, seed=seed + number))
    return vit.eval()


def apart(got: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return float((got - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("stem", reshape.STEMS)
@given(seed=SEEDS)
def test_a_grey_image_gives_the_same_after_summing(stem: str, seed: int) -> None:
    state = {stem: random(4, 3, 7, 7, seed=seed)}
    grey = random(1, 1, 9, 9, seed=seed + 1)
    summed = reshape.change_channels(state, 1)[stem]
    assert summed.shape == (4, 1, 7, 7)
    assert apart(F.conv2d(grey, summed), F.conv2d(grey.expand(-1, 3, -1, -1), state[stem])) < 1e-12


@given(seed=SEEDS, old=st.integers(1, 4), times=st.integers(1, 3))
def test_repeated_channels_give_the_same(seed: int, old: int, times: int) -> None:
    state = {"conv1.weight": random(4, old, 7, 7, seed=seed)}
    image = random(1, old, 9, 9, seed=seed + 1)
    repeated = reshape.change_channels(state, old * times)["conv1.weight"]
    assert apart(F.conv2d(image.repeat(1, times, 1, 1), repeated), F.conv2d(image, state["conv1.weight"])) < 1e-12


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7])
def test_channels_follow_timm(channels: int) -> None:
    weight = random(4, 3, 7, 7).float()
    got = reshape.change_channels({"conv1.weight": weight}, channels)["conv1.weight"]
    assert torch.allclose(got, adapt_input_conv(channels, weight.clone()), rtol=1e-6, atol=0)
    assert got.dtype == torch.float32


@given(seed=SEEDS)
def test_bgr(seed: int) -> None:
    state = {"conv1.weight": random(4, 3, 7, 7, seed=seed)}
    image = random(1, 3, 9, 9, seed=seed + 1)
    swapped = reshape.swap_red_and_blue(state)
    assert apart(F.conv2d(image.flip(1), swapped["conv1.weight"]), F.conv2d(image, state["conv1.weight"])) < 1e-12
    assert torch.equal(reshape.swap_red_and_blue(swapped)["conv1.weight"], state["conv1.weight"])
    assert not torch.equal(swapped["conv1.weight"], state["conv1.weight"])
    with pytest.raises(WeightsError, match="4 channels, not RGB"):
        reshape.swap_red_and_blue({"conv1.weight": random(2, 4, 7, 7)})


def split_qkv(state: State) -> State:
    """timm's one layer as the three of EVA."""
    split = {name: tensor for name, tensor in state.items() if ".attn.qkv." not in name}
    for name in state.keys() - split.keys():
        for part, rows in zip("qkv", state[name].chunk(3), strict=True):
            split[name.replace(".qkv.", f".{part}_proj.")] = rows.clone()
    return split


def registers_to_dinov2(state: State) -> State:
    """Meta's names; the class token's position, which is inside of the token, becomes zero."""
    kept = {name: tensor for name, tensor in state.items() if name != "reg_token"}
    position = torch.cat([torch.zeros_like(state["cls_token"]), state["pos_embed"]], dim=1)
    return kept | {"register_tokens": state["reg_token"], "pos_embed": position}


@given(seed=SEEDS, bias=st.booleans(), width=st.integers(1, 5))
def test_split_then_fused_is_the_identity(seed: int, bias: bool, width: int) -> None:
    state = {"blocks.0.attn.qkv.weight": random(3 * width, width, seed=seed), "blocks.0.norm1.weight": random(width)}
    if bias:
        state["blocks.0.attn.qkv.bias"] = random(3 * width, seed=seed + 1)
    split = split_qkv(state)
    assert torch.equal(split["blocks.0.attn.k_proj.weight"], state["blocks.0.attn.qkv.weight"][width : 2 * width])
    assert ("blocks.0.attn.q_proj.bias" in split) == bias
    again = fuse_qkv(split)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_split_layers_compute_what_the_fused_one_does() -> None:
    vit = small_vit()
    split = split_qkv({f"blocks.0.{name}": tensor for name, tensor in vit.blocks[0].state_dict().items()})
    own = Block(12, 3, qkv_bias=True, init_values=0.1).double()
    own.load_state_dict({name.removeprefix("blocks.0."): tensor for name, tensor in fuse_qkv(split).items()})
    x = random(1, 5, 12)
    assert torch.equal(own(x), vit.blocks[0](x))


def test_biases_that_are_absent_in_part_are_zero() -> None:
    state = {f"attn.{part}.weight": random(2, 2) for part in ("q_proj", "k_proj", "v_proj")}
    state = {f"blocks.0.{name}": tensor for name, tensor in state.items()}
    assert fuse_qkv(state).keys() == {"blocks.0.attn.qkv.weight"}
    bias = {"blocks.0.attn.q_proj.bias": torch.ones(2), "blocks.0.attn.v_proj.bias": torch.full((2,), 2.0)}
    assert fuse_qkv(state | bias)["blocks.0.attn.qkv.bias"].tolist() == [1, 1, 0, 0, 2, 2]
    del state["blocks.0.attn.k_proj.weight"]
    assert fuse_qkv(state | bias).keys() == (state | bias).keys(), "a part of a layer is none"


@given(seed=st.integers(0, 50))
def test_folding_layer_scale_keeps_the_output(seed: int) -> None:
    vit = small_vit(seed)
    plain = VisionTransformer(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=3, num_classes=0).double()
    folded = reshape.fold_layer_scale(vit.state_dict())
    plain.load_state_dict(folded)
    x = random(1, 3, 32, 32, seed=seed)
    with torch.no_grad():
        wanted = vit(x)
        assert apart(plain.eval()(x), wanted) < 1e-12
        plain.load_state_dict({name: tensor for name, tensor in vit.state_dict().items() if ".gamma" not in name})
        assert apart(plain(x), wanted) > 1e-3, "the gains must matter"


@given(seed=SEEDS, side=st.integers(1, 9))
def test_position_keeps_the_class_token_and_constants(seed: int, side: int) -> None:
    token, constant = random(1, 1, 3, seed=seed), random(1, 1, 3, seed=seed + 1).float()
    state = {"pos_embed": torch.cat([token.float(), constant.expand(1, 16, 3)], dim=1)}
    got = reshape.resize_position(state, side)["pos_embed"]
    assert got.shape == (1, 1 + side**2, 3)
    assert torch.equal(got[:, :1], token.float())
    assert torch.allclose(got[:, 1:], constant.expand(1, side**2, 3), atol=1e-5)
    assert torch.equal(reshape.resize_position(state, 4)["pos_embed"], state["pos_embed"])


def by_dinov2(position: Tensor, side: int, antialias: bool, offset: float) -> Tensor:
    """How DINOv2's own forward pass resamples patch positions (1, N, D), written after its interpolate_pos_encoding."""
    old = round(position.shape[1] ** 0.5)
    grid = position.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    size = {"scale_factor": ((side + offset) / old,) * 2} if offset else {"size": (side, side)}
    grid = F.interpolate(grid, mode="bicubic", antialias=antialias, **size)
    assert grid.shape[-1] == side
    return grid.permute(0, 2, 3, 1).flatten(1, 2)


@pytest.mark.parametrize("side", [16, 24, 37])
def test_positions_follow_dinov2_with_registers_and_not_without(side: int) -> None:
    smooth = F.interpolate(random(1, 8, 6, 6), size=(37, 37), mode="bicubic").flatten(2).transpose(1, 2).float()
    state = {"reg_token": random(1, 4, 8), "pos_embed": smooth}
    got = reshape.resize_position(state, side)["pos_embed"]
    assert apart(got, by_dinov2(smooth, side, antialias=True, offset=0.0)) < 1e-6
    if side != 37:
        without = apart(got, by_dinov2(smooth, side, antialias=False, offset=0.1))
        assert 1e-3 < without < 0.2, "the docstring says that they differ a little"


def test_fit_position_changes_nothing_that_does_not_fit() -> None:
    state = {"pos_embed": random(1, 17, 3)}
    fitted, notes = reshape.fit_position(state, "vit_tiny", (1, 5, 3))
    assert torch.equal(fitted["pos_embed"], resample_abs_pos_embed(state["pos_embed"], [2, 2]))
    assert notes == ("position embedding resampled from 4 x 4 to 2 x 2 patches",)
    for shape in ((1, 17, 3), (1, 5, 4), (1, 6, 3), (1, 0, 3), ()):
        fitted, notes = reshape.fit_position(state, "vit_tiny", shape)
        assert fitted["pos_embed"] is state["pos_embed"]
        assert notes == ()


@given(seed=SEEDS, old=st.integers(2, 8), more=st.integers(0, 8))
def test_larger_patches_give_the_same_for_resized_patches(seed: int, old: int, more: int) -> None:
    state = {"patch_embed.proj.weight": random(4, 3, old, old, seed=seed).float()}
    patch = random(1, 3, old, old, seed=seed + 1).float()
    larger = F.interpolate(patch, size=(old + more, old + more), mode="bicubic", antialias=True)
    got = reshape.resize_patches(state, old + more)["patch_embed.proj.weight"]
    assert torch.allclose(F.conv2d(larger, got), F.conv2d(patch, state["patch_embed.proj.weight"]), atol=1e-2)


def test_registers_by_timm_and_back() -> None:
    vit = small_vit(registers=2)
    original = registers_to_dinov2(vit.state_dict())
    original["pos_embed"][:, :1] = random(1, 1, 12, seed=9)
    got = reshape.registers_from_dinov2(original)
    by_timm = checkpoint_filter_fn({**original, "mask_token": torch.zeros(1, 12)}, vit)
    assert got.keys() == by_timm.keys() == vit.state_dict().keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in by_timm.items())
    assert torch.equal(got["cls_token"], vit.cls_token + original["pos_embed"][:, :1])
    again = reshape.registers_from_dinov2(registers_to_dinov2(got))
    assert all(torch.equal(again[name], tensor) for name, tensor in got.items())


@given(seed=SEEDS, kernel=st.sampled_from([1, 3, 7]), stride=st.integers(1, 2))
def test_a_constant_volume_gives_what_its_slice_gives(seed: int, kernel: int, stride: int) -> None:
    weight = random(3, 2, kernel, kernel, seed=seed)
    image = random(1, 2, 9, 9, seed=seed + 1)
    inflated = inflate({"layer1.0.conv1.weight": weight})["layer1.0.conv1.weight"]
    assert inflated.shape == (3, 2, kernel, kernel, kernel)
    volume = image.unsqueeze(-1).expand(-1, -1, -1, -1, 15)
    got = F.conv3d(volume, inflated, stride=stride, padding=kernel // 2)
    wanted = F.conv2d(image, weight, stride=stride, padding=kernel // 2)
    inside = got[..., 2:-2] if stride == 2 else got[..., 3:-3]
    assert apart(inside, wanted.unsqueeze(-1).expand_as(inside)) < 1e-12
    assert kernel == 1 or apart(got[..., 0], wanted) > 1e-3, "the padding takes part of the first slice away"


def test_inflated_vit_repeats_patches_and_positions() -> None:
    state = small_vit().state_dict()
    inflated = inflate(state, depth=3)
    assert inflated["patch_embed.proj.weight"].shape == (12, 3, 8, 8, 8)
    assert torch.allclose(inflated["patch_embed.proj.weight"].sum(-1), state["patch_embed.proj.weight"])
    assert torch.equal(inflated["pos_embed"][:, 0], state["pos_embed"][:, 0])
    grid = inflated["pos_embed"][:, 1:].reshape(1, 16, 3, 12)
    assert all(torch.equal(grid[:, :, number], state["pos_embed"][:, 1:]) for number in range(3))
    assert inflate(state)["pos_embed"].shape == (1, 1 + 4**3, 12)


CHANGES: dict[str, Callable[[State], State]] = {
    "channels": lambda state: reshape.change_channels(state, 1),
    "bgr": reshape.swap_red_and_blue,
    "position": lambda state: reshape.resize_position(state, 2),
    "patches": lambda state: reshape.resize_patches(state, 4),
    "gains": reshape.fold_layer_scale,
    "volume": inflate,
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_given_state_stays(change: str) -> None:
    state = {name: tensor.clone() for name, tensor in small_vit().state_dict().items()}
    before = {name: tensor.clone() for name, tensor in state.items()}
    changed = CHANGES[change](state)
    for tensor in changed.values():
        assert tensor.dtype == torch.float64
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert any(name not in changed or not torch.equal(changed[name], state[name]) for name in state)


def test_refuses_what_has_no_stem_or_no_square_grid() -> None:
    with pytest.raises(WeightsError, match=r"no conv1\.weight or patch_embed"):
        reshape.change_channels({"fc.weight": random(2, 2)}, 1)
    with pytest.raises(WeightsError, match="5 patches, which is no square"):
        reshape.grid_of({"pos_embed": random(1, 6, 2)})


def test_timm_interpolates_registers_models_alike() -> None:
    """Positions for another image are those that timm makes itself when it loads a model for it."""
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0)
    torch.nn.init.normal_(vit.pos_embed)
    other = timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=0)
    wanted = checkpoint_filter_fn(dict(vit.state_dict()), other)["pos_embed"]
    assert torch.equal(reshape.resize_position(vit.state_dict(), 6)["pos_embed"], wanted)
