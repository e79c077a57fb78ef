"""DINOv2: its three losses against plain loops, masks that reach the student alone, centres, pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plain_distillation import cross_entropy, multi_crop, plain, sinkhorn, softmax
from timm.models.vision_transformer import VisionTransformer
from tiny_encoder import TinyEncoder, random_views, tiny_vit

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods import BlockMasking, DINOHeadOptions, DINOSchedule, DINOv2, SampleKeys, parameter_groups
from monai_ssl_transfer.methods.centre import sinkhorn_knopp
from monai_ssl_transfer.methods.dinov2 import koleo
from monai_ssl_transfer.methods.masks import block_masks

KEYS = SampleKeys(0, 2, torch.arange(6))
VIEWS = (16, 16, 8, 8)
SCHEDULE = DINOSchedule(teacher_temperature=0.07, warmup_temperature=0.05, warmup=0.4, student_temperature=0.15)


def small_dinov2(encoder: VisionTransformer | None = None, **options: object) -> DINOv2:
    """With a teacher that is not the student, centres that are not 0 and a mask token that is not 0."""
    torch.manual_seed(0)
    head = DINOHeadOptions(hidden_dim=32, bottleneck_dim=8, learned_lengths=True)
    options = {"schedule": SCHEDULE, "head": head, "masking": BlockMasking(probability=0.7), **options}
    method = DINOv2(encoder or tiny_vit(), 24, **options)
    for parameter in method.teacher_encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    method.centre.value[:] = torch.randn(24) * 0.1
    method.patch_centre.value[:] = torch.randn_like(method.patch_centre.value) * 0.1
    method.mask_token.data = torch.randn(1, 16)
    return method


def masks_of(method: DINOv2) -> torch.Tensor:
    """`(2, B, rows, columns)`."""
    return block_masks(KEYS, 2, (4, 4), method.masking).unflatten(0, (2, 6))


def student_tokens(method: DINOv2, view: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A ViT with a mask token, step by step, for images of the encoder's own size and a class token alone."""
    vit = method.encoder
    patches = vit.patch_embed.proj(view).flatten(2).transpose(1, 2).clone()
    patches[mask.flatten(1)] = method.mask_token[0]
    tokens = torch.cat([vit.cls_token.expand(len(view), -1, -1), patches], dim=1) + vit.pos_embed
    return vit.norm(vit.blocks(tokens))


def plain_koleo(x: np.ndarray) -> float:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = [min(np.linalg.norm(a - b) for j, b in enumerate(x) if i != j) for i, a in enumerate(x)]
    return float(-np.mean(np.log(nearest)))


@pytest.mark.parametrize("patch_prototypes", [None, 40])
def test_loss_is_the_sum_of_the_papers_three(patch_prototypes: int | None) -> None:
    method = small_dinov2(patch_prototypes=patch_prototypes, patch_weight=0.8, koleo_weight=0.2).eval()
    views, masks = random_views(0, VIEWS), masks_of(method)
    assert (masks.sum((2, 3)) == 0).any()
    heads = method.projection_head, method.teacher_projection_head
    patch_heads = heads
    if patch_prototypes is not None:
        patch_heads = method.patch_projection_head, method.teacher_patch_projection_head
    tokens = [student_tokens(method, views[v], masks[v]) for v in (0, 1)]
    seen = [method.teacher_encoder.forward_features(views[v]) for v in (0, 1)]

    local = [method.encoder.forward_features(view)[:, 0] for view in views[2:]]
    student = [plain(heads[0](x)) for x in (tokens[0][:, 0], tokens[1][:, 0], *local)]
    teacher = [plain(heads[1](x[:, 0])) for x in seen]
    dino = multi_crop(teacher, student, plain(method.centre.value), 0.06, 0.15).mean()

    per_view = []
    for v in (0, 1):
        guesses, answers = plain(patch_heads[0](tokens[v][:, 1:])), plain(patch_heads[1](seen[v][:, 1:]))
        for image in range(6):
            places = masks[v, image].flatten().nonzero().flatten().tolist()
            rows = [
                cross_entropy(answers[image, p], guesses[image, p], plain(method.patch_centre.value), 0.06, 0.15)
                for p in places
            ]
            per_view.append(np.mean(rows) if rows else 0.0)
    ibot = np.mean(per_view)

    spread = sum(plain_koleo(plain(x[:, 0])) for x in tokens)
    output = method(views, 0.2, KEYS)  # half way through the warm-up of the temperature
    assert output["view_loss"].item() == pytest.approx(dino, rel=1e-5)
    assert output["patch_loss"].item() == pytest.approx(ibot, rel=1e-5)
    assert output["koleo"].item() == pytest.approx(spread, rel=1e-4)
    assert output["loss"].item() == pytest.approx(dino + 0.8 * ibot + 0.2 * spread, rel=1e-4)


def test_sinkhorn_knopp_is_the_listing_and_every_prototype_is_used_alike() -> None:
    teacher = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    teacher[:, 0] += 3  # a softmax would choose this one
    found = sinkhorn_knopp(teacher, 0.5)
    assert np.allclose(plain(found), sinkhorn(plain(teacher), 0.5), atol=1e-5)
    assert found.sum(0).tolist() == pytest.approx([8] * 5, rel=0.1)
    sharp = sinkhorn_knopp(100 * teacher, 0.04)  # exp() of it is infinite
    assert torch.isfinite(sharp).all() and sharp.sum(1).tolist() == pytest.approx([1] * 40)
    assert sinkhorn_knopp(teacher[:0], 0.5).shape == (0, 5)


def test_loss_with_sinkhorn_knopp() -> None:
    method = small_dinov2(centring="sinkhorn_knopp", masking=BlockMasking(probability=1.0, least=0.3)).eval()
    views, masks = random_views(0, VIEWS), masks_of(method)
    tokens = [student_tokens(method, views[v], masks[v]) for v in (0, 1)]
    seen = [method.teacher_encoder.forward_features(views[v]) for v in (0, 1)]
    student = [plain(method.projection_head(x[:, 0])) for x in tokens]
    student += [plain(method.projection_head(method.encoder.forward_features(view)[:, 0])) for view in views[2:]]
    both = sinkhorn(np.concatenate([plain(method.teacher_projection_head(x[:, 0])) for x in seen]), 0.06)
    pairs = [
        -(both[6 * t + image] * np.log(softmax(student[s][image] / 0.15))).sum()
        for image in range(6)
        for t in (0, 1)
        for s in range(4)
        if s != t
    ]
    output = method(views, 0.2, KEYS)
    assert output["view_loss"].item() == pytest.approx(np.mean(pairs), rel=1e-5)

    hidden = [mask.flatten(1) for mask in masks]
    answers = np.concatenate([plain(method.teacher_projection_head(x[:, 1:])[hidden[v]]) for v, x in enumerate(seen)])
    guesses = np.concatenate([plain(method.projection_head(x[:, 1:])[hidden[v]]) for v, x in enumerate(tokens)])
    rows = [-(t * np.log(softmax(g / 0.15))).sum() for t, g in zip(sinkhorn(answers, 0.06), guesses, strict=True)]
    per_view = [np.mean(part) for part in np.split(rows, np.cumsum(torch.cat(hidden).sum(1).numpy())[:-1])]
    assert output["patch_loss"].item() == pytest.approx(np.mean(per_view), rel=1e-5)


def test_an_unknown_centring_is_refused_and_the_known_one_is_recognised() -> None:
    with pytest.raises(TrainingError, match="choose centre or sinkhorn_knopp"):
        small_dinov2(centring="swav")
    assert "centring=sinkhorn_knopp" in repr(small_dinov2(centring="sinkhorn_knopp"))


def test_koleo_against_loops_and_for_equal_vectors() -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert koleo(x).item() == pytest.approx(plain_koleo(plain(x)), rel=1e-5)
    twins = torch.cat([x.detach()[:2], x.detach()[:1] + 1e-7, x.detach()[2:]]).requires_grad_(True)
    koleo(twins).backward()
    assert torch.isfinite(twins.grad).all()
    assert twins.grad[0].norm() < 10
    assert twins.grad[4].norm() > 0


def test_masks_reach_the_student_alone() -> None:
    method = small_dinov2(masking=BlockMasking(probability=1.0, least=0.3)).eval()
    views = random_views(0, VIEWS)
    before = method.represent(views, 0.2, KEYS)
    method.mask_token.data = 3 * torch.randn(1, 16)
    after = method.represent(views, 0.2, KEYS)
    for name in ("view_sum", "patch_sum", "embedding", "teacher_entropy"):
        assert torch.equal(before[name], after[name]), name
    assert torch.equal(before["embedding"], method.transfer_encoder(views[0]))
    for name in ("view_loss", "patch_loss", "classes"):
        assert (before[name] - after[name]).abs().amax() > 1e-3, name
    assert not any(key.startswith("mask_token") for key in method.transfer_encoder.state_dict())
    method.masking = BlockMasking(probability=0.0)
    bare = method.represent(views, 0.2, KEYS)
    assert torch.allclose(bare["classes"][:, 0], method.encoder(views[0]), atol=1e-6)
    assert not bare["patch_loss"].any()


@pytest.mark.parametrize("options", [{"reg_tokens": 2, "init_values": 0.5}, {"no_embed_class": True}])
@pytest.mark.parametrize("size", [16, 20])
def test_registers_layer_scale_and_other_sizes(options: dict, size: int) -> None:
    method = small_dinov2(tiny_vit(**options)).eval()
    method.masking = BlockMasking(probability=0.0)
    views = random_views(0, (size, size, 8))
    output = method.represent(views, 0.2, KEYS)
    assert torch.allclose(output["classes"][:, 1], method.encoder(views[1]), atol=1e-6)
    method.masking = BlockMasking(probability=1.0)
    method.train()(views, 0.2, KEYS)["loss"].backward()
    trained = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert method.mask_token.grad.abs().sum() > 0


def test_patches_of_patch_14_encoders_go_where_they_belong() -> None:
    method = small_dinov2(tiny_vit(patch_size=14, img_size=28, reg_tokens=4)).eval()
    views = random_views(0, (56, 56, 28))
    method.masking = BlockMasking(probability=1.0)
    counts = block_masks(KEYS, 2, (4, 4), method.masking).sum((1, 2)).unflatten(0, (2, 6)).sum(0)
    assert torch.equal(method.represent(views, 0.2, KEYS)["patch_count"], counts)


def test_centres_move_once_by_the_means_over_all_pieces() -> None:
    method = small_dinov2(patch_prototypes=40)
    views, masks = random_views(0, VIEWS), masks_of(method)
    seen = [method.teacher_encoder.forward_features(views[v]) for v in (0, 1)]
    classes = torch.cat([method.teacher_projection_head(x[:, 0]) for x in seen])
    patches = torch.cat(
        [method.teacher_patch_projection_head(x[:, 1:])[masks[v].flatten(1)] for v, x in enumerate(seen)]
    )
    starts = method.centre.value.clone(), method.patch_centre.value.clone()
    expected = [
        0.9 * plain(start) + 0.1 * plain(rows).mean(0) for start, rows in zip(starts, (classes, patches), strict=True)
    ]
    for pieces in ([slice(0, 6)], [slice(0, 2), slice(2, 6)]):
        for centre, start in zip((method.centre, method.patch_centre), starts, strict=True):
            centre.value[:] = start
        for piece in pieces:
            method([view[piece] for view in views], 0.2, KEYS.part(piece))
        assert torch.equal(method.patch_centre.value, starts[1])
        method.after_step(1.0)
        assert np.allclose(plain(method.centre.value), expected[0], atol=1e-6)
        assert np.allclose(plain(method.patch_centre.value), expected[1], atol=1e-6)


def test_a_batch_without_masks_leaves_the_centre_of_patches_alone() -> None:
    method = small_dinov2(masking=BlockMasking(probability=0.0))
    before = method.patch_centre.value.clone()
    output = method(random_views(0, VIEWS), 0.2, KEYS)
    output["loss"].backward()
    method.after_step(1.0)
    assert torch.equal(method.patch_centre.value, before)
    assert method.mask_token.grad is not None  # DDP wants one in every step


def test_pieces_are_compared_as_a_whole() -> None:
    method = small_dinov2().eval()
    assert not method.separable
    views = random_views(0, VIEWS)
    pieces = [
        method.represent([view[piece] for view in views], 0.2, KEYS.part(piece)) for piece in (slice(0, 2), slice(2, 6))
    ]
    together = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    whole = method(views, 0.2, KEYS)["loss"].item()
    assert method.compare(together, 0.2)["loss"].item() == pytest.approx(whole, rel=1e-6)


def test_heads_for_patches_follow_and_prototypes_stand_still_at_first() -> None:
    schedule = DINOSchedule(momentum=0.9, freeze_last_layer=0.1)
    method = small_dinov2(patch_prototypes=40, schedule=schedule)
    optimizer = torch.optim.AdamW(parameter_groups(method, 0.04), lr=0.01)
    names = [name for name, p in method.named_parameters() if "last_layer" in name and p.requires_grad]
    assert len(names) == 4  # directions and lengths of both heads
    state = method.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    for progress, frozen in ((0.09, True), (0.1, False)):
        optimizer.zero_grad()
        method(random_views(0, VIEWS), progress, KEYS)["loss"].backward()
        method.before_step(progress)
        optimizer.step()
        assert [torch.equal(before[name], state[name]) for name in names] == [frozen] * 4
    method.after_step(0.0)
    for name, value in state.items():
        if name.startswith("teacher_patch_projection_head"):
            expected = 0.9 * before[name].double() + 0.1 * state[name.removeprefix("teacher_")].double()
            assert torch.allclose(value.double(), expected, atol=1e-6), name


def test_published_values_are_the_defaults() -> None:
    method = DINOv2(tiny_vit(), prototypes=32)
    schedule = method.schedule
    assert [schedule.teacher_temperature_at(p) for p in (0.0, 0.15, 0.3, 1.0)] == pytest.approx(
        [0.04, 0.055, 0.07, 0.07]
    )
    assert (schedule.momentum, method.koleo_weight, method.patch_weight) == (0.992, 0.1, 1.0)
    assert method.masking == BlockMasking(0.5, 0.1, 0.5, smallest_block=4, aspect=0.3)
    assert math.isclose(method.projection_head.last_layer.weight_g.mean().item(), 1.0)
    assert method.collapsed_loss is None


def test_what_cannot_be_masked_is_refused() -> None:
    with pytest.raises(TrainingError, match="DINOv2 hides patches, which a TinyEncoder does not have"):
        DINOv2(TinyEncoder())
    with pytest.raises(TrainingError, match="DINOv2 draws masks"):
        small_dinov2()(random_views(0), 0.0)
    with pytest.raises(TrainingError, match="at least 2 views"):
        small_dinov2()(random_views(0, (16,)), 0.0, KEYS)
