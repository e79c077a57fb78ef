"""From a volume of any scanner to a volume of label values with a slice network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from monai_ssl_transfer.data.volumes.intensities import VolumeToChannels, fill_value, is_hounsfield
from monai_ssl_transfer.data.volumes.labels import decoded_labels, label_values
from monai_ssl_transfer.engines.transfer.inference import SliceVolumeInferer
from monai_ssl_transfer.errors import DataError, TrainingError


class LabelledVolumeInferer(SliceVolumeInferer):
    """`SliceVolumeInferer` that gives out label values, of any number of classes or of overlapping regions.

    Args:
        pixel_spacing: (row, column) working spacing in mm, or one number for both; None keeps the native pixels.
        class_labels: label values by name.
        channels: layout of the input: "windows", "single", "neighbours", "z_score" or "percentile".
        in_channels: channels of the network's input.
        overlapping: one output per name (sigmoid) instead of one per label value (softmax).
        batch_size: slices per forward pass.
        multiple: rows and columns are padded to a multiple of this.
        precision: "fp32" or "bf16".
    """

    def __init__(
        self,
        pixel_spacing: float | Sequence[float] | None,
        class_labels: Mapping[str, Sequence[int]],
        channels: str = "windows",
        in_channels: int = 3,
        overlapping: bool = False,
        batch_size: int = 8,
        multiple: int = 32,
        precision: str = "fp32",
    ) -> None:
        self.in_channels = in_channels  # which the converter below needs
        super().__init__(pixel_spacing, channels, batch_size, multiple, precision)
        self.class_labels, self.overlapping = dict(class_labels), overlapping
        self.outputs = len(self.class_labels) if overlapping else len(label_values(self.class_labels))
        self.fill = float(fill_value(channels))
        if not is_hounsfield(channels):
            self.modalities = (1, in_channels)

    def _converter(self, channels: str) -> nn.Module:
        return VolumeToChannels(channels, self.in_channels)

    def _decoded(self, logits: Tensor) -> Tensor:
        if logits.shape[1] != self.outputs:
            raise DataError(
                f"the network has {logits.shape[1]} outputs but class_labels ask for {self.outputs}: give the "
                "class_labels of its training."
            )
        return decoded_labels(logits, self.class_labels, self.overlapping)


def check_network_input(network: nn.Module, in_channels: int) -> None:
    """Refuse a network with another number of input channels than the task feeds it.

    Raises:
        TrainingError: they differ.
    """
    first = next((one for one in network.modules() if isinstance(one, nn.Conv2d)), None)
    if first is not None and first.in_channels != in_channels:
        raise TrainingError(
            f"the network takes {first.in_channels} channels but the task gives {in_channels}: name the overlay of the "
            f"task after that of the network, or set --network_def#in_channels {in_channels}."
        )
