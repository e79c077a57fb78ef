"""What the demos run, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from monai_ssl_transfer.errors import DataError

ARMS = ("scratch", "pretrained")


@dataclass(frozen=True)
class DemoPlan:
    """What every domain's demo has; the defaults of the domains fit six minutes on two cores.

    Args:
        size: rows and columns of a generated image.
        seeds: runs per arm.
        shown: test cases on the page.
        pretraining: ids of the pretraining bundle that the demo overrides.
        transfer: ids of the segmentation bundle that the demo overrides, the same for both arms.
    """

    size: int = 128
    seeds: tuple[int, ...] = (0, 1, 2)
    shown: int = 2
    pretraining: dict[str, Any] = field(default_factory=dict)
    transfer: dict[str, Any] = field(default_factory=dict)


def _ct_pretraining() -> dict[str, Any]:
    return {"epochs": 10, "batch_size": 64, "image_size": 64, "num_workers": 0, "knn_interval": 1}


def _ct_transfer() -> dict[str, Any]:
    return {
        "epochs": 6,
        "val_interval": 2,
        "encoder_learning_rate_factor": 1.0,
        "slices_per_epoch": 64,
        "batch_size": 8,
        "pixel_spacing": 3.0,
        "image_size": 128,
        "num_workers": 0,
    }


@dataclass(frozen=True)
class CTPlan(DemoPlan):
    """Liver on generated CT.

    Args:
        cases: phantom patients; half of them without labels, half as labelled liver cases.
        train_cases: labelled cases that both arms train on.
        validation_cases: labelled cases that choose the best model; all further ones are the test set.
    """

    pretraining: dict[str, Any] = field(default_factory=_ct_pretraining)
    transfer: dict[str, Any] = field(default_factory=_ct_transfer)
    cases: int = 24
    train_cases: int = 2
    validation_cases: int = 2

    def divide(self, names: list[str]) -> dict[str, list[str]]:
        """Divide the labelled cases, in their order, into train, validation and test.

        Raises:
            DataError: nothing would be left for the test.
        """
        train, validation = self.train_cases, self.train_cases + self.validation_cases
        if len(names) <= validation:
            raise DataError(f"{len(names)} labelled cases leave none for the test: give --cases {2 * validation + 2}.")
        return {"train": names[:train], "validation": names[train:validation], "test": names[validation:]}


def _endoscopy_pretraining() -> dict[str, Any]:
    return {"epochs": 15, "batch_size": 64, "image_size": 64, "num_workers": 0, "knn_interval": 0}


def _endoscopy_transfer() -> dict[str, Any]:
    return {
        "epochs": 20,
        "val_interval": 5,
        "encoder_learning_rate_factor": 1.0,
        "learning_rate": 0.001,
        "label_fraction": 0.5,
        "batch_size": 8,
        "image_size": 96,
        "num_workers": 0,
    }


@dataclass(frozen=True)
class EndoscopyPlan(DemoPlan):
    """Polyps on generated endoscopy.

    Args:
        videos: unlabelled videos for the pretraining.
        frames: of each video.
        labelled: photographs with a mask; a fifth validates and a fifth is the test.
        landmarks: share of HyperKvasir's images per class that is generated to judge the encoder.
    """

    pretraining: dict[str, Any] = field(default_factory=_endoscopy_pretraining)
    transfer: dict[str, Any] = field(default_factory=_endoscopy_transfer)
    shown: int = 4
    videos: int = 40
    frames: int = 8
    labelled: int = 120
    landmarks: float = 0.012
