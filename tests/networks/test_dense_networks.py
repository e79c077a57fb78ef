"""Networks with one output per pixel: sizes, gradients, export, and equality with independent encoders and decoders."""

from __future__ import annotations

import pytest
import torch
from segmentation_models_pytorch import DeepLabV3Plus
from segmentation_models_pytorch.decoders.dpt.decoder import ReadoutConcatBlock, ReassembleBlock
from torch import nn

from monai_ssl_transfer.networks import build_dense, build_encoder
from monai_ssl_transfer.networks.dense import DPTPyramidDecoder

PAIRS = [
    ("resnet18", "linear"),
    ("vit_tiny", "linear"),
    ("resnet18", "unet"),
    ("vit_tiny", "unet"),
    ("resnet18", "deeplabv3plus"),
    ("resnet50", "deeplabv3plus"),
    ("vit_tiny", "dpt"),
]


def randomise_statistics(network: nn.Module) -> nn.Module:
    """Batch norm that does something, and no residual branch that starts at zero, as timm's do."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2, generator=generator)
            nn.init.uniform_(module.running_mean, -0.2, 0.2, generator=generator)
            nn.init.uniform_(module.running_var, 0.8, 1.2, generator=generator)
    return network.eval()


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_the_output_has_the_size_of_the_input(encoder: str, decoder: str) -> None:
    network = build_dense(encoder, decoder, in_channels=1, out_channels=3, image_size=64).eval()
    for size in ((64, 64), (96, 32)):
        with torch.no_grad():
            assert network(torch.randn(2, 1, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(
    ("encoder", "decoder", "size"),
    [
        ("vit_tiny", "linear", (48, 80)),
        ("vit_tiny", "dpt", (48, 80)),
        ("resnet18", "deeplabv3plus", (48, 80)),
        ("resnet18", "linear", (33, 70)),
    ],
)
def test_sizes_that_are_no_multiple_of_32(encoder: str, decoder: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert build_dense(encoder, decoder, image_size=64).eval()(torch.randn(1, 3, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize(("encoder", "decoder"), [pair for pair in PAIRS if pair[1] != "unet"])
def test_every_part_gets_a_gradient(encoder: str, decoder: str) -> None:
    network = build_dense(encoder, decoder, image_size=32).train()
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("encoder", "decoder"), [pair for pair in PAIRS if pair[1] != "unet"])
def test_export_to_torchscript_keeps_other_sizes(encoder: str, decoder: str) -> None:
    network = build_dense(encoder, decoder, image_size=64).eval()
    scripted = torch.jit.script(network)
    for size in ((64, 64), (96, 64)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            assert torch.equal(scripted(x), network(x))


def test_wrong_pairs_are_explained() -> None:
    with pytest.raises(ValueError, match="choose one of linear, unet, dpt"):
        build_dense("vit_tiny", "deeplabv3plus")
    with pytest.raises(ValueError, match="choose one of linear, unet, deeplabv3plus"):
        build_dense("resnet18", "dpt")
    with pytest.raises(ValueError, match="Unknown decoder 'fcn'"):
        build_dense("resnet18", "fcn")


def test_linear_decoder_sees_the_normalised_patch_tokens_in_their_places() -> None:
    network = build_dense("vit_tiny", "linear", image_size=64).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        (wanted,) = network.encoder.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
        assert wanted.shape == (2, 192, 4, 6)
        assert torch.equal(network.features(x), wanted)


def test_linear_decoder_sees_the_last_map_of_a_resnet() -> None:
    network = randomise_statistics(build_dense("resnet18", "linear"))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(network.features(x).mean(dim=(2, 3)), network.encoder(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_dilation_keeps_what_the_encoder_was_pretrained_to_compute(name: str) -> None:
    """Maps of strides 2 to 16 are equal; every second pixel of the deepest one is the plain encoder's map."""
    encoder = randomise_statistics(build_encoder(name)).double()
    network = build_dense(name, "deeplabv3plus").eval().double()
    network.encoder.load_state_dict(dict(encoder.state_dict()))
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        plain = encoder.forward_intermediates(x, intermediates_only=True)
        maps = network.encoder(x)[1:]
        assert [64 // each.shape[2] for each in maps] == [2, 4, 8, 16, 16]
        assert all(torch.equal(got, wanted) for got, wanted in zip(maps[:4], plain[:4], strict=True))
        scale = plain[4].abs().max()
        assert (maps[4][..., ::2, ::2] - plain[4]).abs().max() < 1e-12 * scale
        # Negative control: the network as segmentation_models_pytorch dilates it computes something else.
        stock = DeepLabV3Plus(name, encoder_weights=None).eval().double()
        stock.encoder.load_state_dict(dict(encoder.state_dict()))
        assert (stock.encoder(x)[5][..., ::2, ::2] - plain[4]).abs().max() > 1e-3 * scale


def test_dpt_taps_the_tokens_of_four_depths() -> None:
    network = build_dense("vit_tiny", "dpt", image_size=64).eval()
    encoder, x = network.encoder.encoder, torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        peer = encoder.forward_intermediates(
            x, indices=[2, 5, 8, 11], output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        tokens = network.encoder(x)
        for number, (patches, prefix) in enumerate(peer):
            wanted = torch.cat([prefix, patches], dim=1)
            assert torch.equal(tokens[number], encoder.norm(wanted) if number == 3 else wanted)


def test_dpt_reassembles_as_the_one_of_segmentation_models() -> None:
    """Readout and reassembly with the same weights give the same maps as an independent implementation."""
    width, fusion, channels = 192, 64, (24, 48, 96, 192)
    decoder = DPTPyramidDecoder(width, fusion).eval()
    tokens = [torch.randn(2, 1 + 4 * 6, width) for _ in channels]
    with torch.no_grad():
        maps = decoder.maps(tokens, 4, 6)
        assert [tuple(each.shape[2:]) for each in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
        for number, (each, factor) in enumerate(zip(channels, (4, 2, 1, 0.5), strict=True)):
            readout = ReadoutConcatBlock(width, has_prefix_tokens=True)
            readout.project.load_state_dict(decoder.readout[number].state_dict())
            block = ReassembleBlock(width, each, fusion, factor)
            mine = decoder.reassemble[number]
            block.project_to_out_channel.load_state_dict(mine[0].state_dict())
            block.upsample.load_state_dict(mine[1].state_dict())
            block.project_to_feature_dim.load_state_dict(mine[2].state_dict())
            grid = tokens[number][:, 1:].transpose(1, 2).reshape(2, width, 4, 6)
            wanted = block(readout(grid, tokens[number][:, :1]))
            assert torch.allclose(maps[number], wanted, atol=1e-6)


def test_every_depth_and_the_class_token_reach_the_output_of_dpt() -> None:
    network = build_dense("vit_tiny", "dpt", image_size=32).eval()
    tokens = [torch.randn(1, 5, 192) for _ in range(4)]
    with torch.no_grad():
        before = network.decoder(tokens, 2, 2)
        for number in range(4):
            for place in (0, 3):
                changed = [each.clone() for each in tokens]
                changed[number][:, place] += 1
                assert not torch.equal(network.decoder(changed, 2, 2), before)
