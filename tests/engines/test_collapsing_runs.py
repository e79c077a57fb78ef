"""Runs of the real trainer that are made to collapse, and their healthy twins."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from torch import Tensor, nn

from monai_ssl_transfer.data.order import ArithmeticBatchSampler
from monai_ssl_transfer.data.slices import SliceDataset, slice_loader
from monai_ssl_transfer.engines.pretraining.collapse import CollapseMonitor, CollapseOptions
from monai_ssl_transfer.engines.pretraining.knn import KNNOptions, OnlineKNNHandler
from monai_ssl_transfer.engines.pretraining.progress import EpochRecords
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod
from monai_ssl_transfer.methods.dino import DINO, DINOHeadOptions, DINOSchedule
from monai_ssl_transfer.methods.simclr import SimCLR

CHANCE = 0.25
SIDE = 16


class Stripes(tiny_run.TinyStore):
    """Stripes of four directions, the classes, with random phase, contrast and noise; 32 patients."""

    def __init__(self) -> None:
        super().__init__(256, SIDE)
        generator = np.random.default_rng(0)
        y, x = np.mgrid[:SIDE, :SIDE]
        self.index["label"] = np.arange(256) % 4
        for number in range(256):
            wave = np.sin((x, y, x + y, x - y)[number % 4] * 1.1 + generator.uniform(0, 2 * math.pi))
            noise = generator.normal(0, 150, (SIDE, SIDE))
            self.slices[number] = 500 * wave * generator.uniform(0.3, 1) + noise

    def patient_numbers(self) -> np.ndarray:
        return np.arange(len(self)) // 8


class SmallEncoder(nn.Sequential):
    num_features = 32

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 3, 2, 1), norm(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), norm(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


class OnlyAttraction(SSLMethod):
    """Pulls the views of an image together and nothing apart: a constant is its best solution."""

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        embeddings = [self.encoder(view) for view in views]
        return {"both": torch.stack(embeddings, dim=1), "embedding": embeddings[0].detach()}

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        both = representations["both"]
        return {"loss": (both[:, 0] - both[:, 1]).square().sum(1).mean()}


def changed_views(image: Tensor, size: Tensor, sample: Tensor, epoch: int) -> list[Tensor]:
    """Two views with other contrast, noise and place, one of them sometimes turned by 180 degrees."""
    views = []
    for _ in range(2):
        view = image.float() / 500 * (0.6 + 0.8 * torch.rand(len(image), 1, 1, 1)) + 0.2 * torch.randn(image.shape)
        turned = torch.where(torch.rand(len(image), 1, 1, 1) < 0.5, view.flip((-1, -2)), view)
        rows, columns = torch.randint(0, SIDE, (2,)).tolist()
        views.append(turned.roll((rows, columns), (-2, -1)))
    return views


def pretrain(folder: Path, method: SSLMethod, rate: float, epochs: int) -> list[dict]:
    """The records of the epochs, of as many as were finished."""
    store = Stripes()
    optimizer = torch.optim.SGD([one for one in method.parameters() if one.requires_grad], rate, momentum=0.9)
    options = CollapseOptions(every=4, warmup=20, warn_after=2, stop_after=10)
    knn = OnlineKNNHandler(method.transfer_encoder, store, "single", options=KNNOptions(image_size=SIDE, interval=2))
    loader = slice_loader(SliceDataset(store, "single"), ArithmeticBatchSampler(len(store), 32, seed=3), 0)
    handlers = [CollapseMonitor(method, options), knn, EpochRecords(folder, optimizer)]
    PretrainingTrainer("cpu", epochs, loader, method, optimizer, changed_views, None, handlers).run()
    return records(folder)


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def dino(**changes: float) -> DINO:
    torch.manual_seed(0)
    schedule = DINOSchedule(momentum=0.9, **changes)
    return DINO(SmallEncoder(), prototypes=64, schedule=schedule, head=DINOHeadOptions(64, 32))


def test_dino_without_centring_is_caught(tmp_path: Path) -> None:
    method = dino(centre_momentum=1.0, teacher_temperature=0.02, warmup_temperature=0.02)
    with pytest.raises(TrainingError, match=r"at step 6\d because the run has collapsed: the teacher gives all images"):
        pretrain(tmp_path, method, 0.03, 10)
    # the embeddings alone would not have told: the loss ended before it reached them
    assert records(tmp_path)[-1]["loss"] < 0.05 and records(tmp_path)[-1]["embedding_spread"] > 0.2


def test_its_twin_with_centring_is_not(tmp_path: Path) -> None:
    found = pretrain(tmp_path, dino(), 0.03, 10)
    assert len(found) == 10 and found[-1]["knn_accuracy"] > 0.8
    assert found[0]["momentum"] == pytest.approx(0.9, abs=0.01) and found[-1]["momentum"] > 0.99


def test_an_encoder_that_forgets_everything_is_caught(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    with pytest.raises(TrainingError, match=r"collapsed: all embeddings are nearly equal .*--learning_rate"):
        pretrain(tmp_path, OnlyAttraction(SmallEncoder(nn.Identity)), 10.0, 12)
    assert "may be collapsing" in caplog.text
    assert [one["knn_accuracy"] for one in records(tmp_path) if "knn_accuracy" in one][-1] < CHANCE + 0.05


def test_its_twin_with_negatives_is_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = pretrain(tmp_path, SimCLR(SmallEncoder(nn.Identity)), 10.0, 12)
    assert len(found) == 12 and found[-1]["knn_accuracy"] > 0.9
