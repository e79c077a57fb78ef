"""Learning rates and freezing for transfer: two rates, warm-up and cosine, decoder first."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from monai_ssl_transfer.engines.pretraining.schedules import cosine
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.networks.parts import encoder_modules, encoder_parameter_names, layer_scales

logger = logging.getLogger(__name__)


def transfer_parameter_groups(
    network: nn.Module,
    learning_rate: float,
    encoder_learning_rate_factor: float = 1.0,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: encoder and head with their own rates, no weight decay on norms and biases.

    Args:
        network: as for `parts.encoder_modules`; its frozen parameters are in no group.
        learning_rate: of the head or decoder, 1/step.
        encoder_learning_rate_factor: the encoder learns at this multiple of it.
        weight_decay: of matrices and kernels.
        layer_decay: each of the encoder's layers learns at this multiple of the next one's rate, see
            `parts.layer_scales`.

    Returns:
        Groups with "name", "params", "lr" and "weight_decay": up to four, or up to two for each layer and the head.

    Raises:
        TrainingError: for a layer decay outside of 0 to 1, or one for an encoder without known layers.
    """
    scales = layer_scales(network, layer_decay)
    groups: dict[tuple[float | None, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scales.get(name), parameter.ndim > 1), []).append(parameter)
    encoder_rate = learning_rate * encoder_learning_rate_factor
    return [
        {
            "name": f"{'head' if scale is None else 'encoder'}{'' if decays else '_no_decay'}",
            "params": parameters,
            "lr": learning_rate if scale is None else encoder_rate * scale,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (scale, decays), parameters in groups.items()
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
        self.learning: list[nn.Parameter] = []

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
        names = encoder_parameter_names(self.network)
        self.learning = [one for name, one in self.network.named_parameters() if name in names and one.requires_grad]
        for parameter in self.learning:
            parameter.requires_grad_(False)
        logger.info("the encoder is frozen for the first %d epochs", self.epochs)

    def _release(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        for parameter in self.learning:  # and nothing that an adaptation has frozen for good
            parameter.requires_grad_(True)
        self.learning = []
        logger.info("the encoder learns from here on")


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
