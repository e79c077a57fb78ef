from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from ignite.engine import Events
from torch import Tensor

from monai_ssl_transfer.engines.pretraining.frozen_stages import FrozenStages, lower_stages
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SSLMethod
from monai_ssl_transfer.methods.momentum import follow, momentum_copy
from monai_ssl_transfer.networks.encoders import build_encoder


class Follower(SSLMethod):
    """A trained encoder and one that follows it."""

    def __init__(self, name: str) -> None:
        super().__init__(build_encoder(name, in_channels=1, image_size=32))
        self.momentum_encoder = momentum_copy(self.encoder)

    def represent(self, views: list[Tensor], progress: float, keys: object = None) -> dict[str, Tensor]:
        embedding = self.encoder(views[0])
        with torch.no_grad():
            target = self.momentum_encoder(views[1])
        return {"query": embedding, "target": target, "embedding": embedding.detach()}

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        return {"loss": (representations["query"] - 2 * representations["target"] + 1).square().mean()}

    def after_step(self, progress: float) -> None:
        follow(self.encoder, self.momentum_encoder, 0.9)


def views(image: Tensor, size: Tensor, sample: Tensor, epoch: int) -> list[Tensor]:
    picture = torch.nn.functional.interpolate(image.float() / 1000, size=32)
    return [picture, picture.flip(-1)]


def run(folder: Path, name: str, stages: int | str, epochs: float = 1) -> list[dict[str, Tensor]]:
    """The encoders' states at the start and after each of two epochs, by FrozenStages in the first of them."""
    torch.manual_seed(0)
    method = Follower(name)
    states: list[dict[str, Tensor]] = []

    class Note:
        def attach(self, engine: PretrainingTrainer) -> None:
            for event in (Events.STARTED, Events.EPOCH_COMPLETED):
                engine.add_event_handler(event, self.note)

        def note(self, engine: PretrainingTrainer) -> None:
            engine.method.encoder.eval()  # what an evaluation at an epoch's end leaves behind
            engine.method.encoder.train()
            states.append({name: tensor.clone() for name, tensor in method.state_dict().items()})

    handlers: list[Any] = [FrozenStages(method, stages, epochs), Note()]
    store = tiny_run.TinyStore(16)
    tiny_run.build(folder, epochs=2, method=method, store=store, views=views, handlers=handlers).run()
    return states


def moved(before: dict[str, Tensor], after: dict[str, Tensor], prefix: str) -> set[str]:
    names = (name for name in before if name.startswith(prefix) and not name.endswith("num_batches_tracked"))
    return {name.removeprefix(prefix) for name in names if not before[name].equal(after[name])}


def test_lower_stages_of_a_resnet_are_unchanged_bit_for_bit(tmp_path: Path) -> None:
    start, first, second = run(tmp_path, "resnet18", 2)
    low = {name.split(".")[0] for name in moved(start, first, "encoder.")}
    assert low == {"layer3", "layer4"}
    later = moved(first, second, "encoder.")
    assert {name.split(".")[0] for name in later} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert "bn1.running_mean" in later and "bn1.weight" in later
    # the follower's running statistics stand still with its stages
    copies = moved(start, first, "momentum_encoder.")
    assert "layer4.0.bn1.running_mean" in copies
    assert not {name for name in copies if "running" in name and name.startswith(("bn1", "layer1", "layer2"))}


def test_lower_blocks_of_a_vit_are_unchanged_bit_for_bit(tmp_path: Path) -> None:
    start, first, second = run(tmp_path, "vit_tiny", 3)
    still = {"patch_embed", "pos_embed", "cls_token"} | {f"blocks.{number}." for number in range(3)}
    assert not [name for name in moved(start, first, "encoder.") if name.startswith(tuple(still))]
    assert {f"blocks.{number}.mlp.fc1.weight" for number in range(3, 12)} <= moved(start, first, "encoder.")
    assert {"patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight"} <= moved(first, second, "encoder.")


def test_stages_that_an_encoder_does_not_have_are_refused() -> None:
    resnet, vit = build_encoder("resnet18"), build_encoder("vit_tiny", image_size=32)
    assert lower_stages(resnet, "all") == lower_stages(resnet, 4)
    assert lower_stages(vit, "all")[-1] == "blocks.11"
    for encoder, stages in ((resnet, 5), (vit, 13), (resnet, 0), (resnet, "most")):
        with pytest.raises(TrainingError, match="choose 1 to"):
            lower_stages(encoder, stages)


def test_a_fraction_of_an_epoch_and_a_run_that_learns_nothing(tmp_path: Path) -> None:
    start, first, _ = run(tmp_path / "a", "resnet18", "all", 0.5)  # one of two steps
    assert {"conv1.weight", "layer4.1.conv2.weight"} <= moved(start, first, "encoder.")
    for epochs in (2, 1.6):  # of two epochs of two steps
        with pytest.raises(TrainingError, match="for the whole run"):
            run(tmp_path / f"{epochs}", "resnet18", "all", epochs)
    with pytest.raises(TrainingError, match="above 0"):
        run(tmp_path / "b", "resnet18", "all", -1)
