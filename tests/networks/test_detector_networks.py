"""Faster R-CNN over our encoders: what goes in, what comes out, and strides that do not depend on the first batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from monai_ssl_transfer.networks import build_detector
from monai_ssl_transfer.networks.detection import LEVELS

ENCODERS = ("resnet18", "vit_tiny")


@pytest.fixture(scope="module", params=ENCODERS)
def detector(request: pytest.FixtureRequest) -> FasterRCNN:
    torch.manual_seed(0)
    return build_detector(request.param, image_size=64, score_threshold=0.0)


def photographs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 32, 64, generator=generator), torch.rand(3, 128, 96, generator=generator)]


def test_training_gives_losses_and_every_part_a_gradient(detector: FasterRCNN) -> None:
    detector.train().zero_grad()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    one = {"boxes": torch.tensor([[10.0, 20.0, 70.0, 90.0]]), "labels": torch.ones(1, dtype=torch.int64)}
    losses = detector(photographs(), [nothing, one])
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert [name for name, parameter in detector.named_parameters() if parameter.grad is None] == []


def test_boxes_come_in_pixels_of_the_photograph(detector: FasterRCNN) -> None:
    images = photographs()
    with torch.no_grad():
        found = detector.eval()(images)
    for image, result in zip(images, found, strict=True):
        boxes, labels, scores = result["boxes"], result["labels"], result["scores"]
        assert len(boxes) == len(labels) == len(scores) > 0
        assert (labels == 1).all()
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= image.shape[2]).all()
        assert (boxes[:, 3] <= image.shape[1]).all()
        assert (scores[:-1] >= scores[1:]).all()
    # The detector works at 64 pixels: boxes beyond that show that they were brought back.
    assert found[1]["boxes"][:, 3].max() > 64


def test_the_network_normalises_and_resizes_by_itself(detector: FasterRCNN) -> None:
    image = photographs()[0].new_tensor([0.485, 0.456, 0.406])[:, None, None].expand(3, 32, 64) + torch.tensor(
        [[[0.229]], [[0.0]], [[0.0]]]
    )
    batch, _ = detector.eval().transform([image])
    assert batch.image_sizes == [(32, 64)]
    assert torch.allclose(batch.tensors[0, 0, :32], torch.ones(32, 64), atol=1e-6)
    assert torch.allclose(batch.tensors[0, 1:, :32], torch.zeros(2, 32, 64), atol=1e-6)
    larger, _ = detector.transform([photographs()[1]])
    assert larger.image_sizes == [(64, 48)]


def test_five_maps_at_strides_4_to_64_with_their_anchors(detector: FasterRCNN) -> None:
    with torch.no_grad():
        maps = detector.eval().backbone(torch.randn(1, 3, 128, 64))
    assert list(maps) == [*LEVELS, "pool"]
    assert [tuple(each.shape[1:]) for each in maps.values()] == [(256, 128 // s, 64 // s) for s in (4, 8, 16, 32, 64)]
    assert detector.rpn.anchor_generator.sizes == ((4,), (8,), (16,), (32,), (64,))


def test_strides_do_not_depend_on_the_first_photograph(detector: FasterRCNN) -> None:
    """Trap: torchvision's pooler infers its strides once, from the unpadded size of the first batch."""
    wide = torch.rand(3, 16, 64)
    with torch.no_grad():
        detector.eval()([wide])
    assert detector.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    stock = MultiScaleRoIAlign(list(LEVELS), 7, 2)
    padded = {level: torch.zeros(1, 1, 16 >> number, 16 >> number) for number, level in enumerate(LEVELS)}
    stock(padded, [torch.tensor([[0.0, 0.0, 8.0, 8.0]])], [(16, 64)])
    assert stock.scales[0] == 1.0  # what would have been used for the rest of the run


def test_result_of_a_vit_does_not_depend_on_the_rest_of_the_batch() -> None:
    torch.manual_seed(0)
    network = build_detector("vit_tiny", image_size=64, score_threshold=0.0).eval()
    images = [torch.rand(3, 32, 64), torch.rand(3, 64, 32)]
    assert network.transform(images[:1])[0].tensors.shape == (1, 3, 64, 64)
    assert network.backbone.body.pos_embed.shape[1] == 1 + 4 * 4
    with torch.no_grad():
        (alone,), (together, _) = network(images[:1]), network(images)
    assert torch.allclose(alone["boxes"], together["boxes"], atol=1e-3)
    assert torch.allclose(alone["scores"], together["scores"], atol=1e-5)


def test_frozen_batch_norm_is_an_option() -> None:
    frozen = build_detector("resnet18", image_size=64, frozen_batch_norm=True)
    kinds = {type(module) for module in frozen.backbone.body.modules() if "Norm" in type(module).__name__}
    assert kinds == {FrozenBatchNorm2d}
    plain = build_detector("resnet18", image_size=64)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in plain.backbone.body.modules()) == 20
    names = {name for name in plain.backbone.body.state_dict() if not name.endswith("num_batches_tracked")}
    assert set(frozen.backbone.body.state_dict()) == names
    x = torch.randn(1, 3, 64, 64)
    frozen.backbone.load_state_dict(plain.backbone.state_dict(), strict=False)
    with torch.no_grad():
        wanted = plain.eval().backbone(x)
        for name, got in frozen.train().backbone(x).items():
            assert torch.allclose(got, wanted[name], atol=1e-5)


def test_export_to_torchscript(detector: FasterRCNN) -> None:
    scripted = torch.jit.script(detector.eval())
    images = photographs()
    with torch.no_grad():
        _, found = scripted(images)  # torchvision's scripted detectors always return losses as well
        wanted = detector(images)
    for got, expected in zip(found, wanted, strict=True):
        assert torch.allclose(got["boxes"], expected["boxes"], atol=1e-3)
        assert torch.allclose(got["scores"], expected["scores"], atol=1e-5)


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        build_detector("resnet18", image_size=100)
    with pytest.raises(ValueError, match="give five"):
        build_detector("resnet18", anchor_sizes=(32, 64))
    with pytest.raises(ValueError, match="no batch norm"):
        build_detector("vit_tiny", frozen_batch_norm=True)
    with pytest.raises(ValueError, match="choose one of resnet18"):
        build_detector("resnet51")
