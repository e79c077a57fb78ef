"""Batches, losses and predictions of a detector within MONAI's engines."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from monai_ssl_transfer.engines.transfer.detection import (
    DetectionInferer,
    SummedDetectionLoss,
    collate_photographs,
    losses_by_name,
    prepare_detection_evaluation,
    prepare_detection_training,
)
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks.detection import build_detector


class LowerRightQuarter(nn.Module):
    """A detector that always finds the lower right quarter of what it sees, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        self.seen += images
        sizes = [image.shape[-2:] for image in images]
        boxes = [torch.tensor([[w / 2, h / 2, w + 3.0, h + 3.0]]) for h, w in sizes]
        return [{"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])} for box in boxes]


def batch() -> dict:
    generator = torch.Generator().manual_seed(0)
    sizes, boxes = [(48, 64), (64, 40)], [torch.tensor([[5.0, 6, 30, 40]]), torch.zeros(0, 4)]
    return collate_photographs(
        [
            {
                "image": torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=generator),
                "boxes": box,
                "labels": torch.ones(len(box), dtype=torch.int64),
                "name": str(size),
            }
            for size, box in zip(sizes, boxes, strict=True)
        ]
    )


@pytest.mark.parametrize(("rows", "columns"), [(100, 75), (31, 97), (640, 480)])
def test_boxes_come_back_in_the_pixels_of_the_photograph(rows: int, columns: int):
    network = LowerRightQuarter()
    photograph = torch.full((3, rows, columns), 255, dtype=torch.uint8)
    (found,) = DetectionInferer(image_size=64)([photograph], network)
    assert max(network.seen[0].shape[1:]) == 64
    assert network.seen[0].max() == 1.0
    assert torch.allclose(found["boxes"], torch.tensor([[columns / 2, rows / 2, columns, rows]]), atol=0.01)


def test_batches_of_different_sizes_stay_lists():
    images, targets, arguments, names = prepare_detection_training(batch(), torch.device("cpu"))
    assert [image.shape for image in images] == [(3, 48, 64), (3, 64, 40)]
    assert targets[1]["boxes"].shape == (0, 4)
    assert arguments == (targets,)
    assert names == {}
    assert prepare_detection_evaluation({"image": images}, "cpu") == (images, [])


def test_a_detector_trains_on_photographs_with_and_without_a_polyp():
    torch.manual_seed(0)
    network = build_detector("resnet18", image_size=64).train()
    images, targets, arguments, _ = prepare_detection_training(batch(), "cpu")
    losses = DetectionInferer(64)(images, network, *arguments)
    assert {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"} == losses.keys()
    assert all(value.dtype == torch.float32 for value in losses.values())
    total = SummedDetectionLoss()(losses, targets)
    assert total.item() == pytest.approx(sum(value.item() for value in losses.values()), rel=1e-6)
    total.backward()
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)
    with torch.no_grad():
        found = DetectionInferer(64)(images, network.eval())
    for one, image in zip(found, images, strict=True):
        assert one["boxes"].dtype == one["scores"].dtype == torch.float32
        assert bool((one["boxes"] >= 0).all())
        assert bool((one["boxes"][:, 2:] <= torch.tensor([image.shape[2], image.shape[1]])).all())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_reaches_the_network_and_the_result_is_float32(precision: str):
    kind = torch.bfloat16 if precision == "bf16" else torch.float32

    class Matrix(nn.Linear):
        def forward(self, images: list, targets: list | None = None) -> dict | list:
            value = super().forward(torch.ones(1, 4))
            assert value.dtype == kind
            if targets is not None:
                return {"loss": value.sum()}
            return [{"boxes": value, "labels": torch.tensor([1]), "scores": value[0, :1]}]

    image = torch.zeros((3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(0)
    network = Matrix(4, 4)
    (found,) = DetectionInferer(8, precision)([image], network)
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert DetectionInferer(8, precision)([image], network, [{}])["loss"].dtype == torch.float32


def test_parts_of_the_loss_are_logged_by_name_and_can_be_weighed():
    losses = {"loss_classifier": torch.tensor(1.0), "loss_box_reg": torch.tensor(2.0)}
    total = SummedDetectionLoss({"loss_box_reg": 0.5})(losses)
    assert total.item() == 2
    assert losses_by_name({"loss": total, "pred": losses}) == {"loss": 2, "loss_classifier": 1, "loss_box_reg": 2}
    with pytest.raises(TrainingError, match="loss_boxes"):
        SummedDetectionLoss({"loss_boxes": 0.5})(losses)


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(TrainingError, match="loss_box_reg nan"):
        SummedDetectionLoss()({"loss_classifier": torch.tensor(1.0), "loss_box_reg": torch.tensor(math.nan)})
