"""Learning rates and freezing for transfer: two rates, warm-up and cosine, decoder first."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from monai_ssl_transfer.engines.schedules import cosine
from monai_ssl_transfer.errors import TrainingError

logger = logging.getLogger(__name__)

HEADS = ("decoder", "segmentation_head", "fc", "classification_head")
"""Children of stock MONAI networks that are new in transfer."""
ENCODERS = ("encoder.encoder", "backbone.body", "encoder")
"""Where a network keeps its encoder: in a backbone of ours (a pyramid may be beside it), in a detector's backbone
(beside the feature pyramid), or as a child of its own."""


def encoder_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a task network that pretraining fills, by dotted name.

    Args:
        network: whatever `networks.build_unet`, `build_dense`, `build_detector` and `build_classifier` build, or the
            stock network in their place.
    """
    modules = dict(network.named_modules())
    for name in ENCODERS:
        if name in modules:
            return {name: modules[name]}
    return {name: child for name, child in network.named_children() if name not in HEADS}


def encoder_parameter_names(network: nn.Module) -> set[str]:
    """Names of the parameters of the encoder; all others belong to the decoder or head."""
    modules = encoder_modules(network)
    within = {f"{name}.{key}" for name, module in modules.items() for key, _ in module.named_parameters()}
    direct = {name for name, _ in network.named_parameters(recurse=False)}  # class token, position embedding
    return within | direct


def transfer_parameter_groups(
    network: nn.Module,
    learning_rate: float,
    encoder_learning_rate_factor: float = 1.0,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: encoder and head with their own rates, no weight decay on norms and biases.

    Args:
        network: as for `encoder_modules`.
        learning_rate: of the head or decoder, 1/step.
        encoder_learning_rate_factor: the encoder learns at this multiple of it.
        weight_decay: of matrices and kernels.

    Returns:
        Up to four groups with "name", "params", "lr" and "weight_decay".
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    encoder = encoder_parameter_names(network)
    for name, parameter in network.named_parameters():
        part = "encoder" if name in encoder else "head"
        groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    rates = {"head": learning_rate, "encoder": learning_rate * encoder_learning_rate_factor}
    return [
        {
            "name": f"{part}{'' if decays else '_no_decay'}",
            "params": parameters,
            "lr": rates[part],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def transfer_schedule(optimizer: Optimizer, steps: int, warmup_steps: int, final_factor: float = 0.0) -> LambdaLR:
    """Scheduler per iteration: linear warm-up to each group's own rate, then half a cosine down.

    Args:
        optimizer: with its peak rates.
        steps: iterations of the whole run.
        warmup_steps: iterations of the warm-up, fewer than ``steps``.
        final_factor: share of the peak rate at the end.

    Raises:
        TrainingError: when nothing is left after the warm-up.
    """
    if steps <= warmup_steps:
        raise TrainingError(
            f"{warmup_steps} warm-up steps leave nothing of {steps} steps: lower warmup_epochs or raise epochs."
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / (steps - warmup_steps)
        return cosine(progress, 1.0, final_factor)

    return LambdaLR(optimizer, factor)


class DecoderFirst:
    """MONAI handler: keep the encoder frozen for some epochs, batch-norm statistics included.

    Args:
        network: the plain network (not its DDP wrapper).
        epochs: epochs with a frozen encoder; 0 never freezes, the length of the run or more always does.
    """

    def __init__(self, network: nn.Module, epochs: int) -> None:
        self.network = network
        self.epochs = epochs
        self.hooks: list[Any] = []

    def attach(self, engine: Engine) -> None:
        """Connect to a trainer."""
        if self.epochs > 0:
            engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)

    def _epoch_started(self, engine: Engine) -> None:
        frozen = engine.state.epoch <= self.epochs
        if frozen and not self.hooks:
            self._freeze()
        elif not frozen and self.hooks:
            self._release()

    def _freeze(self) -> None:
        # A trainer calls network.train() in every iteration, which would let batch norm drift: the encoder returns to
        # evaluation mode right before the network works. Backbones call their encoder's parts: the hook sits on top.
        self.hooks = [self.network.register_forward_pre_hook(_encoder_in_evaluation_mode)]
        self._set_trainable(False)
        logger.info("the encoder is frozen for the first %d epochs", self.epochs)

    def _release(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        self._set_trainable(True)
        logger.info("the encoder learns from here on")

    def _set_trainable(self, trainable: bool) -> None:
        names = encoder_parameter_names(self.network)
        for name, parameter in self.network.named_parameters():
            if name in names:
                parameter.requires_grad_(trainable)


def _encoder_in_evaluation_mode(network: nn.Module, _: Any) -> None:
    for module in encoder_modules(network).values():
        module.eval()


class DatasetEpoch:
    """MONAI handler: tell a dataset that draws its items at random which epoch it is.

    Args:
        dataset: with ``set_epoch(epoch)``.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Connect to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda trainer: self.dataset.set_epoch(trainer.state.epoch))
