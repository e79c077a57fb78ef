"""MAE: its loss against plain loops, tokens that are really dropped, and pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder, patterned_views, random_views, tiny_vit
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods import MAE, MAEDecoderOptions, SampleKeys, parameter_groups
from monai_ssl_transfer.methods.masks import shuffled_patches
from monai_ssl_transfer.methods.tokens import embed_patches, through_blocks
from monai_ssl_transfer.networks.frozen_inputs import sine_cosine_positions

KEYS = SampleKeys(0, 2, torch.arange(6))


def small_mae(encoder: nn.Module | None = None, **options: float) -> MAE:
    torch.manual_seed(0)
    return MAE(encoder or tiny_vit(), decoder=MAEDecoderOptions(width=16, depth=2, heads=2), **options)


def plain_patches(view: Tensor, size: int = 4) -> np.ndarray:
    """Patches `(B, N, C * size * size)` in float64, row by row."""
    pixels, patches = view.double().numpy(), []
    for row in range(0, pixels.shape[2], size):
        for column in range(0, pixels.shape[3], size):
            patches.append(pixels[:, :, row : row + size, column : column + size].reshape(len(pixels), -1))
    return np.stack(patches, axis=1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24)])
@pytest.mark.parametrize("normalised", [True, False])
def test_loss_is_the_squared_error_on_hidden_patches(normalised: bool, height: int, width: int) -> None:
    method = small_mae(normalised_target=normalised).eval()
    view = torch.randn(6, 1, height, width, generator=torch.Generator().manual_seed(0))
    view[0, :, :4, :4] = 0.7  # a patch of one colour
    patches = height * width // 16
    order = shuffled_patches(KEYS, patches).numpy()
    predicted = method.represent([view], 0.0, KEYS)["prediction"].detach().double().numpy()
    total, truth = [], plain_patches(view)
    for image in range(6):
        hidden = order[image, patches // 4 :]
        assert predicted.shape == (6, len(hidden), 16)
        for place, guess in zip(hidden, predicted[image], strict=True):
            wanted = truth[image, place]
            if normalised:
                wanted = (wanted - wanted.mean()) / np.sqrt(wanted.var(ddof=1) + 1e-6)
            total.append(((guess - wanted) ** 2).mean())
    assert method([view], 0.0, KEYS)["loss"].item() == pytest.approx(np.mean(total), rel=1e-5)


@pytest.mark.parametrize("size", [16, 24])
@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2, "init_values": 0.5}, {"no_embed_class": True}])
def test_with_all_patches_it_is_timms_forward_pass(options: dict, size: int) -> None:
    method = small_mae(tiny_vit(**options)).eval()
    view = random_views(0, (size,))[0]
    full = method.encoder.forward_features(view)
    prefix = method.encoder.num_prefix_tokens
    assert torch.allclose(through_blocks(method.encoder, embed_patches(method.encoder, view)), full, atol=1e-6)
    order = shuffled_patches(KEYS, (size // 4) ** 2)
    encoded = method._encode(view, order)
    assert torch.allclose(encoded[:, :prefix], full[:, :prefix], atol=1e-5)
    rows = order[..., None].expand(-1, -1, 16)
    assert torch.allclose(encoded[:, prefix:], full[:, prefix:].gather(1, rows), atol=1e-5)


def test_encoder_runs_on_visible_patches_alone() -> None:
    method = small_mae().eval()
    lengths = []
    method.encoder.blocks[0].register_forward_hook(lambda block, inputs, output: lengths.append(output.shape[1]))
    view = random_views(0, (16,))[0]
    before = method.represent([view], 0.0, KEYS)
    assert lengths == [1 + 4]
    hidden = shuffled_patches(KEYS, 16)[:, 4:]
    changed = view.clone()
    for image, places in enumerate(hidden.tolist()):
        for place in places:
            row, column = 4 * (place // 4), 4 * (place % 4)
            changed[image, :, row : row + 4, column : column + 4] += 1.0 + torch.randn(4, 4)
    after = method.represent([changed], 0.0, KEYS)
    assert torch.equal(before["prediction"], after["prediction"])
    assert torch.equal(before["embedding"], after["embedding"])
    assert not torch.allclose(before["target"], after["target"])


def test_decoder_is_that_of_the_paper_in_the_grids_order() -> None:
    """All tokens put back into the grid, as the authors' code does, give the same predictions."""
    method = small_mae().eval()
    view, order = random_views(0, (16,))[0], shuffled_patches(KEYS, 16)
    latent = method._encode(view, order[:, :4])
    decoder = method.decoder
    x = decoder.embed(latent)
    grid = decoder.mask_token.expand(6, 16, -1).clone()
    for image in range(6):
        grid[image, order[image, :4]] = x[image, 1:]
    full = torch.cat([x[:, :1], grid + sine_cosine_positions(4, 4, 16)], dim=1)
    predicted = decoder.predict(decoder.norm(decoder.blocks(full)))[:, 1:]
    expected = torch.stack([predicted[image, order[image, 4:]] for image in range(6)])
    assert torch.allclose(method.represent([view], 0.0, KEYS)["prediction"], expected, atol=1e-5)


def test_embedding_is_the_mean_of_the_visible_patches() -> None:
    method = small_mae(tiny_vit(global_pool="avg", fc_norm=False)).eval()
    view = random_views(0, (16,))[0]
    expected = method._encode(view, shuffled_patches(KEYS, 16)[:, :4])[:, 1:].mean(1)
    assert torch.allclose(method([view], 0.0, KEYS)["embedding"], expected, atol=1e-6)
    assert method.transfer_encoder is method.encoder
    # With every patch visible it is what the encoder to transfer gives.
    everything = method._encode(view, torch.arange(16).expand(6, 16))[:, 1:].mean(1)
    assert torch.allclose(everything, method.transfer_encoder(view), atol=1e-6)


def test_loss_of_a_batch_is_the_mean_of_its_pieces() -> None:
    method = small_mae().eval()
    assert method.separable
    view = random_views(0, (16,))[0]
    pieces = [method([view[place]], 0.0, KEYS.part(place))["loss"].item() for place in (slice(0, 3), slice(3, 6))]
    assert sum(pieces) / 2 == pytest.approx(method([view], 0.0, KEYS)["loss"].item(), rel=1e-6)


class Oracle(nn.Module):
    """A decoder that knows the answer."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, *_: object) -> Tensor:
        return self.answer


@pytest.mark.parametrize("normalised", [True, False])
def test_picture_of_a_perfect_prediction_is_the_view(normalised: bool) -> None:
    method = small_mae(normalised_target=normalised).eval()
    view = random_views(0, (16,))[0] * 3 + 1
    painted = method.reconstruct(view, KEYS)
    shown = shuffled_patches(KEYS, 16)[:, :4]
    before, after = plain_patches(view), plain_patches(painted)
    for image in range(6):
        same = np.isclose(before[image], after[image], atol=1e-5).all(axis=1)
        assert set(np.flatnonzero(same)) == set(shown[image].tolist())
    method.decoder = Oracle(method.represent([view], 0.0, KEYS)["target"])
    assert torch.allclose(method.reconstruct(view, KEYS), view, atol=1e-5)


def test_activation_checkpointing_changes_nothing() -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        method = small_mae()
        method.encoder.set_grad_checkpointing(checkpointing)
        method.encoder.blocks[0].norm1.register_forward_hook(lambda *_, seen=calls: seen.append(1))
        method([random_views(0, (16,))[0]], 0.0, KEYS)["loss"].backward()
        gradients.append(method.encoder.patch_embed.proj.weight.grad)
        calls.append(0)
    assert calls == [1, 0, 1, 1, 0]  # once more in the backward pass
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


def test_loss_falls_on_a_toy_problem() -> None:
    method = small_mae()
    optimizer = torch.optim.AdamW(parameter_groups(method, 0.05), lr=3e-3)
    losses = []
    for step in range(60):
        loss = method(patterned_views(step, sizes=(16,)), step / 60, SampleKeys(0, step, torch.arange(16)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def test_what_cannot_be_masked_is_refused() -> None:
    with pytest.raises(TrainingError, match="MAE hides patches, which a TinyEncoder does not have"):
        MAE(TinyEncoder())
    with pytest.raises(TrainingError, match=r"mask_ratio 1\.0"):
        MAE(tiny_vit(), mask_ratio=1.0)
    method = small_mae()
    with pytest.raises(TrainingError, match="MAE draws masks"):
        method(random_views(0, (16,)), 0.0)
    with pytest.raises(TrainingError, match="needs 1 views per image but the recipe makes 2"):
        method(random_views(0), 0.0, KEYS)
    with pytest.raises(TrainingError, match="18 x 18 pixels are not whole patches of 4 x 4"):
        method(random_views(0, (18,)), 0.0, KEYS)
    with pytest.raises(TrainingError, match="Of 1 x 1 patches MAE would show none"):
        method(random_views(0, (4,)), 0.0, KEYS)


def test_decoder_has_the_published_shape() -> None:
    decoder = MAE(tiny_vit(embed_dim=24, patch_size=16, img_size=32, in_chans=3)).decoder
    assert len(decoder.blocks) == 8
    assert decoder.blocks[0].attn.num_heads == 16
    assert decoder.blocks[0].mlp.fc1.weight.shape == (2048, 512)
    assert decoder.embed.weight.shape == (512, 24)
    assert decoder.predict.weight.shape == (16 * 16 * 3, 512)
