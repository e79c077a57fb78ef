"""Fine-tuning: where the encoder comes from, and which model is kept."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)


def initialise_encoder(
    network: nn.Module,
    encoder_weights: str | Path | None,
    output_dir: str | Path | None = None,
    channels: str = "",
) -> str:
    """Load pretrained weights into the encoder of a task network, or say that there are none.

    Args:
        network: task network, changed in place.
        encoder_weights: `encoder.safetensors` (its card beside it) or another checkpoint; None starts from scratch.
        output_dir: folder of the run, where the first process writes what was loaded (`encoder_load.json` and, for
            people, `encoder_load.txt`); None writes nothing.
        channels: what the network is fed, "windows", "single", "neighbours" or "rgb", to be compared with the encoder's
            card; "" compares nothing.

    Returns:
        "scratch" or the file.

    Raises:
        WeightsError: when the file does not fill the whole encoder, its card says that it was pretrained on other
            channels or HU windows of the same kind of images, or the record cannot be written.
    """
    from monai_ssl_transfer.weights.load import load_encoder_weights
    from monai_ssl_transfer.weights.load_record import write_load_record

    report, file = None, None
    if encoder_weights is None or str(encoder_weights) in ("", "None", "none"):
        logger.warning("FROM SCRATCH: no encoder_weights are given, so the encoder starts with random weights")
    else:
        file = encoder_weights
        report = load_encoder_weights(network, file, channels=channels)
    if output_dir is not None:
        write_load_record(output_dir, file, report)
    return "scratch" if file is None else str(file)


class BestModelSaver:
    """MONAI handler for the validation engine: keep the state dict of the best network, written atomically.

    Of an adapted network there is also `adapter.safetensors` beside it; see `save_model`.

    MONAI's CheckpointSaver writes over the old file, so that a kill at the wrong instant leaves no model at all; this
    handler writes a temporary file, flushes it and renames it.

    Args:
        network: the plain network (not its DDP wrapper).
        path: where the state dict goes.
        metric: name in ``engine.state.metrics``, larger is better; None takes the key metric.
    """

    def __init__(self, network: nn.Module, path: str | Path, metric: str | None = None) -> None:
        self.network = network
        self.path = Path(path)
        self.metric = metric
        self.best: float | None = None

    def attach(self, engine: Engine) -> None:
        """Connect to an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def _completed(self, engine: Engine) -> None:
        metric = self.metric or getattr(engine.state, "key_metric_name", None)
        if metric not in engine.state.metrics:
            raise TrainingError(
                f"validation gave no metric '{metric}', so no best model can be kept: add a key_metric."
            )
        value = float(engine.state.metrics[metric])
        if math.isnan(value):  # would stay the best for ever, because nothing is larger than nan
            raise TrainingError(
                f"validation cannot define '{metric}', so no best model can be kept: validate on more images, of every "
                "class that the metric needs (raise validation_fraction)."
            )
        if self.best is None and self.path.is_file():
            logger.warning("%s of an earlier run is replaced by the first validated model of this one", self.path)
        if self.best is None or value > self.best:
            self.best = value
            save_model(self.network, self.path)
            logger.info("best model so far (%s %.4f) is in %s", metric, value, self.path)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an earlier best value."""
        self.best = state["best"]


class LastModelSaver:
    """MONAI handler for a trainer without validation cases: keep the network of the last epoch, written atomically.

    Args:
        network: the plain network (not its DDP wrapper).
        path: where the state dict goes.
    """

    def __init__(self, network: nn.Module, path: str | Path) -> None:
        self.network = network
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Connect to a trainer."""
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def _completed(self, engine: Engine) -> None:
        save_model(self.network, self.path)
        logger.warning(
            "nothing validates: the model of epoch %d, the last one, is in %s", engine.state.epoch, self.path
        )


def save_model(network: nn.Module, path: Path) -> None:
    """Write a plain state dict on the CPU: temporary name, flush, rename.

    An adapted network is written merged, so that whatever reads the model needs to know nothing of adaptations; what
    learnt is written beside it without the encoder (`weights.adapter_file`). An adapter of another model is removed
    first: a kill leaves a model without its adapter rather than two files that do not belong together.

    Raises:
        TrainingError: when the disk is full or cannot be written; the previous file stays whole.
    """
    from monai_ssl_transfer.networks.adapters import applied_adaptation, merged_state
    from monai_ssl_transfer.weights.adapter_file import ADAPTER_NAME, save_adapter

    state, adapter = merged_state(network), path.with_name(ADAPTER_NAME)
    try:
        adapter.unlink(missing_ok=True)
        write_durably(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f"the model could not be written to {path} ({error}): free space there and go on."
        ) from error
    if applied_adaptation(network) is not None:
        save_adapter(network, adapter)


def load_model(network: nn.Module, path: str | Path) -> None:
    """Load a state dict that `save_model` or a MONAI bundle wrote; every tensor must fit.

    Raises:
        TrainingError: no such file, or one that does not fit.
    """
    file = Path(path)
    if not file.is_file():
        raise TrainingError(f"there is no model at {file}: train one first, or name yours with --model_file.")
    state = torch.load(file, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(
            f"{file} does not fit the network of this bundle ({str(error).splitlines()[-1].strip()}): "
            "give the same network overlay as in training."
        ) from error
    logger.info("the network has the weights of %s", file)
