"""A finished run is continued for longer: another run starts from its end, with a schedule of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Events

from monai_ssl_transfer.engines.checkpoints.fingerprint import file_hash
from monai_ssl_transfer.engines.checkpoints.shared import read_same_checkpoint
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.weights import EncoderCard
from monai_ssl_transfer.weights.save import CARD_NAME

logger = logging.getLogger(__name__)

SAME = ("method", "encoder", "channels")
"""What both runs must have in common, by its name in a checkpoint's fingerprint; of the method, its class."""


class ContinuedRun:
    """Starts a run from the end of another one, with everything that it had learnt.

    The whole method (momentum encoder, heads, queue, centre) and the optimizer's state come from the other run's newest
    checkpoint; the schedules (warm-up included) start anew over the new run's length, and the optimizer's settings are
    the new run's. The order of the data and all random numbers go on with the epochs that follow the other run's, which
    is this handler's only state. Once the new run has a checkpoint of its own, the other one is not needed any more.
    Put it after ``ExactResumeHandler``, which must find the new run's own checkpoint first.

    Args:
        run: ``output_dir`` of the other run; None continues nothing.
        fingerprint: the new run's method, encoder and channels, as ``ExactResumeHandler`` has them.
        encoder_weights: what the new run's encoder was filled with, which must be None beside another run.

    Raises:
        TrainingError: when both a run and weights are given.
    """

    def __init__(
        self, run: str | Path | None, fingerprint: dict[str, Any], encoder_weights: str | Path | None = None
    ) -> None:
        if run is not None and encoder_weights is not None:
            raise TrainingError(
                f"The encoder cannot start from {encoder_weights} and from the end of {run} at once; give either "
                "--encoder_weights or --continued_run."
            )
        self.run = None if run is None else Path(run)
        self.kind = _kind(fingerprint)
        self.epoch_offset = 0
        self.source: dict[str, Any] | None = None

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.STARTED, self.start)

    def state_dict(self) -> dict[str, Any]:
        """The epochs before this run's first one, and what it started from."""
        return {"epoch_offset": self.epoch_offset, "source": self.source}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the same epochs."""
        self.epoch_offset = int(state["epoch_offset"])
        self.source = state.get("source")

    def start(self, engine: PretrainingTrainer) -> None:
        """Load the other run's end, unless this run has begun before.

        Raises:
            TrainingError: when the other run has no checkpoint, or another method, encoder or channels.
        """
        if self.run is not None and engine.state.iteration == 0:
            found = read_same_checkpoint(self.run / "checkpoints")
            if found is None:
                raise TrainingError(f"{self.run} has no checkpoints to continue from; give the output_dir of a run.")
            self._take_over(engine, *found)
        engine.epoch_offset = self.epoch_offset
        engine.continued_from = self.source

    def _take_over(self, engine: PretrainingTrainer, path: Path, content: dict[str, Any]) -> None:
        self._require_same_kind(path, content["fingerprint"])
        try:
            engine.method.load_state_dict(content["method"])
        except RuntimeError as error:
            raise TrainingError(
                f"The method in {path} has tensors of other shapes (prototypes, queue_size or image_size differ); give "
                "this run the same numbers."
            ) from error
        _load_optimizer(engine, content, path)
        epochs = math.ceil(content["iteration"] / int(content["fingerprint"]["iterations"]))
        before = content["handlers"].get(type(self).__name__, {"epoch_offset": 0})
        self.epoch_offset = before["epoch_offset"] + epochs
        self.source = _source(path)
        logger.info(
            "continuing %s after %d of its %s epochs, as epoch %d of the data's order",
            path,
            epochs,
            content["fingerprint"]["epochs"],
            self.epoch_offset + 1,
        )

    def _require_same_kind(self, path: Path, other: dict[str, str]) -> None:
        kind = _kind(other)
        changed = [name for name in SAME if kind[name] != self.kind[name]]
        if changed:
            raise TrainingError(
                f"{path} cannot be continued by a run with another {' and '.join(changed)}; give the settings of that "
                "run, or start from its encoder alone with --encoder_weights."
            )


def _source(path: Path) -> dict[str, Any]:
    """What the card says of the checkpoint: its file name and hash, and where that run's encoder came from."""
    source: dict[str, Any] = {"file": path.name, "sha256": file_hash(path)}
    card_file = path.parent.parent / CARD_NAME
    if card_file.is_file():
        card = EncoderCard.from_json(card_file.read_text(encoding="utf-8"), str(card_file))
        source |= {"licence": card.licence, "method": card.method, "source_hash": card.source_hash}
    return source


def _kind(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """The class of the method, the encoder and the channels: schedules and rates may differ, the tensors may not."""
    kind = {name: str(fingerprint.get(name)) for name in SAME}
    return kind | {"method": kind["method"].partition("(")[0]}


def _load_optimizer(engine: PretrainingTrainer, content: dict[str, Any], path: Path) -> None:
    """The moments of the other run's optimizer, with this run's settings; fresh ones where the optimizer differs."""
    optimizer = engine.optimizer
    own = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    if content["fingerprint"].get("optimizer") != type(optimizer).__name__:
        logger.warning("%s has another optimizer; its moments start anew", path)
        return
    if _sizes(content["optimizer"]["param_groups"]) != _sizes(optimizer.param_groups):
        logger.warning("%s has another layer_decay or patch_learning_rate_factor; its moments start anew", path)
        return
    optimizer.load_state_dict(content["optimizer"])
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def _sizes(groups: list[dict[str, Any]]) -> list[int]:
    """Parameters of each group."""
    return [len(group["params"]) for group in groups]
