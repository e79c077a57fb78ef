"""From a CT volume to a label volume with a slice network, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from monai_ssl_transfer.data.ct.slice_transforms import AIR, pad_slices, resample_slices, working_size
from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.views.windows import HUToChannels

PRECISIONS = ("fp32", "bf16")


def precision_context(precision: str, device: torch.device) -> AbstractContextManager:
    """Autocast for "bf16" (CPU and GPU alike), nothing for "fp32".

    Raises:
        TrainingError: for another name.
    """
    if precision not in PRECISIONS:
        raise TrainingError(f"unknown precision '{precision}': choose one of {', '.join(PRECISIONS)}.")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def device_of(network: Callable, default: torch.device) -> torch.device:
    """Device of a network's parameters, or the default where it has none."""
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return default if parameter is None else parameter.device


class PrecisionInferer(Inferer):
    """Call the network as it is, in fp32 or under bf16 autocast; the result is always float32.

    Args:
        precision: "fp32" or "bf16". MONAI's own AMP switch works on CUDA only; this one works on a CPU as well.
    """

    def __init__(self, precision: str = "fp32") -> None:
        precision_context(precision, torch.device("cpu"))
        self.precision = precision

    def __call__(self, inputs: Tensor, network: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Run the network on (B, C, H, W)."""
        with precision_context(self.precision, inputs.device):
            return network(inputs, *args, **kwargs).float()


class SliceMeanInferer(PrecisionInferer):
    """`PrecisionInferer` that also takes all slices of one volume: their mean probabilities are those of the volume.

    Args:
        precision: "fp32" or "bf16".
        batch_size: slices of a volume per forward pass.
    """

    def __init__(self, precision: str = "fp32", batch_size: int = 8) -> None:
        super().__init__(precision)
        self.batch_size = batch_size

    def __call__(self, inputs: Tensor, network: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Classify.

        Args:
            inputs: (B, C, H, W) slices, or (1, S, C, H, W), the slices of one volume.
            network: (B, C, H, W) -> (B, classes) logits.
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            (B, classes) logits of slices, or (1, classes) probabilities of a volume, float32.
        """
        if inputs.dim() == 4:
            return super().__call__(inputs, network, *args, **kwargs)
        parts = [super(SliceMeanInferer, self).__call__(one, network) for one in inputs[0].split(self.batch_size)]
        return torch.cat(parts).softmax(dim=1).mean(dim=0, keepdim=True)


class SliceVolumeInferer(Inferer):
    """Segment a CT volume slice by slice and return its label volume on the same grid.

    A batch of slices at a time is brought to the working pixel spacing, turned into channels, passed through the
    network, brought back to its native size as logits (bilinear) and reduced by argmax. Logits of the whole volume
    never exist, so that the memory needed is the volume plus one byte per voxel plus one batch.

    Args:
        pixel_spacing: (row, column) working spacing in mm, or one number for both; None keeps the native pixels.
        channels: channel layout of `HUToChannels`: "windows", "single" or "neighbours".
        batch_size: slices per forward pass.
        multiple: rows and columns are padded with air to a multiple of this.
        precision: "fp32" or "bf16".
    """

    def __init__(
        self,
        pixel_spacing: float | Sequence[float] | None,
        channels: str = "windows",
        batch_size: int = 8,
        multiple: int = 32,
        precision: str = "fp32",
    ) -> None:
        precision_context(precision, torch.device("cpu"))
        self.modalities: tuple[int, ...] = (1,)
        self.fill = float(AIR)
        self.pixel_spacing = None if pixel_spacing is None else ensure_tuple_rep(pixel_spacing, 2)
        self.to_channels: nn.Module = self._converter(channels)
        self.adjacent = 3 if channels == "neighbours" else 1
        self.batch_size = batch_size
        self.multiple = multiple
        self.precision = precision

    def _converter(self, channels: str) -> nn.Module:
        """What turns slices into the input of the network."""
        return HUToChannels(channels)

    def _decoded(self, logits: Tensor) -> Tensor:
        """(B, classes, H, W) logits to (B, H, W) uint8 labels."""
        return logits.argmax(dim=1).to(torch.uint8)

    def __call__(self, inputs: Tensor, network: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Segment one volume.

        Args:
            inputs: (1, 1, R, C, Z) HU in PLS orientation (rows to posterior, columns to the left, slices upwards). A
                `MetaTensor` brings its spacing along; a plain tensor is possible only with ``pixel_spacing=None``.
            network: (B, C, H, W) float32 -> (B, classes, H, W) logits.
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            (1, 1, R, C, Z) uint8 on the device of the volume, with its affine and meta data.

        Raises:
            DataError: not one volume, no affine, or another orientation.
        """
        if inputs.dim() != 5 or inputs.shape[0] != 1 or inputs.shape[1] not in self.modalities:
            count = self.modalities[-1]
            raise DataError(
                f"a volume of shape {tuple(inputs.shape)} came where (1, {count}, rows, columns, slices) is needed: "
                f"segment one {'single' if count == 1 else count}-channel volume at a time."
            )
        size = self._working_size(inputs)
        volume = (inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs)[0]
        device = device_of(network, volume.device)
        self.to_channels.to(device)
        labels = torch.empty((volume.shape[3], *volume.shape[1:3]), dtype=torch.uint8, device=volume.device)
        with torch.no_grad():
            for start, slices in self._batches(volume):
                batch = self._labels_of(slices.to(device), size, network, *args, **kwargs)
                labels[start : start + len(batch)] = batch.to(labels.device)
        result = labels.permute(1, 2, 0)[None, None]
        return MetaTensor(result).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else result

    def _working_size(self, inputs: Tensor) -> tuple[int, int]:
        rows, columns = inputs.shape[2:4]
        if isinstance(inputs, MetaTensor):
            affine = np.asarray(inputs.affine.cpu(), dtype=float).reshape(-1, 4, 4)[0]
            codes = "".join(code or "?" for code in nibabel.aff2axcodes(affine))
            if codes != "PLS":
                raise DataError(
                    f"a volume is oriented {codes}: put Orientationd(axcodes='PLS') into the preprocessing."
                )
        if self.pixel_spacing is None:
            return rows, columns
        if not isinstance(inputs, MetaTensor):
            raise DataError("a volume carries no affine, so its pixel spacing is unknown: load it with LoadImaged.")
        return working_size((rows, columns), np.linalg.norm(affine[:3, :2], axis=0).tolist(), self.pixel_spacing)

    def _batches(self, volume: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (first slice, (B, modalities or 3, R, C) float32); several batches are cut at once: slices lie last."""
        count = volume.shape[3]
        chunk = self.batch_size * max(1, 32 // self.batch_size)
        for first in range(0, count, chunk):
            last = min(first + chunk, count)
            halo = torch.arange(first - 1, last + 1).clamp(0, count - 1)
            low, high = int(halo[0]), int(halo[-1]) + 1
            stack = volume[..., low:high].permute(3, 0, 1, 2).contiguous().float().clamp_min_(AIR)
            for start in range(first, last, self.batch_size):
                stop = min(start + self.batch_size, last)
                if self.adjacent == 1:
                    yield start, stack[start - low : stop - low]
                else:
                    offsets = torch.arange(start, stop)[:, None] + torch.tensor([-1, 0, 1])
                    yield start, stack[offsets.clamp(0, count - 1) - low, 0]

    def _labels_of(self, slices: Tensor, size: tuple[int, int], network: Callable, *args: Any, **kwargs: Any) -> Tensor:
        padded, (top, left) = pad_slices(resample_slices(slices, size), self.multiple, self.fill)
        with precision_context(self.precision, slices.device):
            logits = network(self.to_channels(padded), *args, **kwargs)
        if logits.shape[-2:] != padded.shape[-2:]:
            raise DataError(
                f"the network returns {tuple(logits.shape)} for slices of {tuple(padded.shape[-2:])} pixels: "
                "use a segmentation network that keeps the size."
            )
        logits = logits[:, :, top : top + size[0], left : left + size[1]].float()
        return self._decoded(resample_slices(logits, (slices.shape[-2], slices.shape[-1])))
