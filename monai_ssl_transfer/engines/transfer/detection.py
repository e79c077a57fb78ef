"""What MONAI's engines need to train and run torchvision's detectors: batches of images that differ in size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from monai_ssl_transfer.data.endoscopy.box_transforms import clip_boxes, fit_longest_side, scale_boxes
from monai_ssl_transfer.engines.transfer.inference import device_of, precision_context
from monai_ssl_transfer.errors import TrainingError

Target = dict[str, Tensor]


def collate_photographs(items: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Put items into a batch without stacking: photographs and boxes differ in size. For a data loader.

    Args:
        items: dicts with the same keys.

    Returns:
        One list per key.
    """
    return {key: [item[key] for item in items] for key in items[0]}


def prepare_detection_training(
    batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **_: Any
) -> tuple[list[Tensor], list[Target], tuple[list[Target]], dict[str, Any]]:
    """For MONAI's SupervisedTrainer: the detector itself compares with the targets, so that they are its argument, too.

    Args:
        batch: of `collate_photographs`, with "image", "boxes" (N, 4) and "labels" (N,).
        device: where the tensors go.
        non_blocking: as in ``Tensor.to``.

    Returns:
        Images, targets, (targets,), {}.
    """
    images, targets = prepare_detection_evaluation(batch, device, non_blocking)
    return images, targets, (targets,), {}


def prepare_detection_evaluation(
    batch: Mapping[str, Any], device: torch.device | str, non_blocking: bool = False, **_: Any
) -> tuple[list[Tensor], list[Target]]:
    """For MONAI's SupervisedEvaluator: images and, where the batch has boxes, targets.

    Args:
        batch: of `collate_photographs`.
        device: where the tensors go.
        non_blocking: as in ``Tensor.to``.

    Returns:
        Images (3, H, W), and per image "boxes" and "labels"; no targets for photographs without labels.
    """

    def moved(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.to(device, non_blocking=non_blocking) for tensor in tensors]

    if "boxes" not in batch:
        return moved(batch["image"]), []
    pairs = zip(moved(batch["boxes"]), moved(batch["labels"]), strict=True)
    return moved(batch["image"]), [{"boxes": boxes, "labels": labels} for boxes, labels in pairs]


class DetectionInferer(Inferer):
    """Run a torchvision detector on photographs of any size.

    In prediction a photograph is resized so that its longer side is ``image_size``, with antialias (torchvision's own
    resizing has none), and the boxes come back in the pixels of the photograph. In training the images come resized.

    Args:
        image_size: longer side of what the network sees, pixels; that of the training.
        precision: "fp32" or "bf16".
    """

    def __init__(self, image_size: int, precision: str = "fp32") -> None:
        precision_context(precision, torch.device("cpu"))
        self.image_size = image_size
        self.precision = precision

    def __call__(  # type: ignore[override]  # a list where other inferers take a tensor: photographs differ in size
        self, inputs: Sequence[Tensor], network: Callable, targets: list[Target] | None = None, **kwargs: Any
    ) -> Any:
        """Run the network.

        Args:
            inputs: (3, H, W) each, uint8 or float of 0..255.
            network: a detector that takes images of 0..1.
            targets: boxes and labels of each image: asks for the losses.
            kwargs: passed on to the network.

        Returns:
            With targets a dict of losses; without, per image "boxes" (N, 4) in its own pixels, "labels" and "scores",
            all float32 or int64, highest score first.
        """
        device = device_of(network, inputs[0].device)
        images = [image.to(device) for image in inputs]
        if targets is not None:
            with precision_context(self.precision, device):
                losses = network([image.float() / 255 for image in images], targets, **kwargs)
            return {name: value.float() for name, value in losses.items()}
        resized = [fit_longest_side(image, self.image_size) for image in images]
        with precision_context(self.precision, device):
            found = network([image.float() / 255 for image in resized], **kwargs)
        sizes = [(one.shape[-2:], other.shape[-2:]) for one, other in zip(resized, images, strict=True)]
        return [_in_own_pixels(one, *size) for one, size in zip(found, sizes, strict=True)]


def _in_own_pixels(found: Mapping[str, Tensor], seen: Sequence[int], native: Sequence[int]) -> Target:
    boxes, kept = clip_boxes(scale_boxes(found["boxes"].float(), seen, native), native)
    return {"boxes": boxes[kept], "labels": found["labels"][kept], "scores": found["scores"].float()[kept]}


class ClientDetector:
    """A network with its inferer, as a label server calls detectors: MONAI Label puts the trained network in its place.

    Args:
        network: a detector.
        inferer: `DetectionInferer`.
    """

    def __init__(self, network: nn.Module, inferer: Inferer) -> None:
        self.network, self.inferer = network, inferer

    def __call__(self, inputs: Tensor, use_inferer: bool = True) -> list[Target]:
        """Detect on (B, 3, H, W), uint8 or float of 0..255; returns what the inferer does, with or without the hint."""
        return self.inferer(list(inputs), self.network)  # type: ignore[arg-type]  # as of DetectionInferer


class SummedDetectionLoss(nn.Module):
    """The sum of the losses that a torchvision detector returns in training.

    Args:
        weights: factor by name of the loss; 1 where none is given.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(weights or {})

    def forward(self, losses: Mapping[str, Tensor], _: Any = None) -> Tensor:
        """Add up.

        Raises:
            TrainingError: a loss is not finite, or a weight is for none of them.
        """
        unknown = sorted(self.weights.keys() - losses.keys())
        if unknown:
            raise TrainingError(f"there is no loss '{unknown[0]}' to weigh: choose of {', '.join(losses)}.")
        total = torch.stack([value * self.weights.get(name, 1.0) for name, value in losses.items()]).sum()
        if not bool(torch.isfinite(total)):
            found = ", ".join(f"{name} {float(value):g}" for name, value in losses.items())
            raise TrainingError(f"a loss of the detector is not finite ({found}): lower learning_rate.")
        return total


def losses_by_name(output: Mapping[str, Any]) -> dict[str, float]:
    """For a log of a trainer's output: the summed loss as ``loss``, and each part under its own name."""
    return {name: float(value.detach()) for name, value in {"loss": output["loss"], **output["pred"]}.items()}
