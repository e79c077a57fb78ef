"""From a photograph of any size to the logits of a dense network at exactly that size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from monai_ssl_transfer.data.endoscopy.frame_transforms import letterbox, undo_letterbox
from monai_ssl_transfer.data.endoscopy.normalisation import normalise_frames
from monai_ssl_transfer.engines.transfer.inference import device_of, precision_context
from monai_ssl_transfer.errors import DataError


class FrameInferer(Inferer):
    """Run a dense network on one photograph at its native size.

    The photograph is letterboxed to the working size (aspect kept, black borders), normalised with ImageNet's mean and
    standard deviation, passed through the network, and the logits are brought back to the native size. Validation and
    inference use this one way, so that what is judged is what is written.

    Args:
        image_size: side of the square that the network sees, pixels; that of the training.
        precision: "fp32" or "bf16".
        channels: that the network takes: 3, or 1 (`normalise_frames`).
    """

    def __init__(self, image_size: int, precision: str = "fp32", channels: int = 3) -> None:
        precision_context(precision, torch.device("cpu"))
        self.image_size = image_size
        self.precision = precision
        self.channels = channels

    def __call__(self, inputs: Tensor, network: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Run the network on one photograph.

        Args:
            inputs: (1, 3, H, W) uint8, or float of 0..255.
            network: (1, channels, S, S) float32, normalised -> (1, C, S, S) logits.
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            (1, C, H, W) float32 logits on the device of the network.

        Raises:
            DataError: not one RGB photograph, or a network that changes the size.
        """
        if inputs.dim() != 4 or inputs.shape[:2] != (1, 3):
            raise DataError(
                f"images of shape {tuple(inputs.shape)} came where (1, 3, rows, columns) is needed: "
                "photographs of different sizes pass one by one, so give batch_size 1."
            )
        image = (inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs)[0]
        squared, place = letterbox(image.to(device_of(network, image.device)), self.image_size, "bilinear")
        with precision_context(self.precision, squared.device):
            logits = network(normalise_frames(squared, self.channels)[None], *args, **kwargs).float()
        if logits.dim() != 4 or logits.shape[-2:] != squared.shape[-2:]:
            raise DataError(
                f"the network returns {tuple(logits.shape)} for a photograph of {tuple(squared.shape[-2:])} pixels: "
                "use a segmentation or depth network that keeps the size."
            )
        return undo_letterbox(logits[0], place)[None]
