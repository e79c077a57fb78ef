"""The lower stages of an encoder stand still for the first epochs, while what is new above them finds its place."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SSLMethod

_RESNET_ENTRANCE = ("conv1", "bn1")
_VIT_ENTRANCE = ("patch_embed", "pos_embed", "cls_token", "reg_token", "norm_pre")


class FrozenStages:
    """Freezes the entrance and the lower stages of the encoder during the first part of a run.

    Their gradients are dropped before the optimizer's step, so that neither weight decay nor a momentum moves the
    parameters (they are computed first: with several processes every parameter must have one), and the batch norms in
    them use and keep their running statistics, in momentum copies of the encoder too. A function of the step, without
    a state, so that a resumed run goes on exactly.

    Args:
        method: its ``encoder``, and its other children named ``...encoder``, are of ``networks.build_encoder``.
        stages: how many of a ResNet's four stages (with the stem) or of a ViT's blocks (with patch embedding,
            positions and class token); ``"all"`` of them leaves only a ViT's last norm to be trained.
        epochs: for so many epochs, in steps; 0.05 x the run's epochs is a twentieth of a run of any length.

    Raises:
        TrainingError: when the encoder does not have so many stages, or epochs is no positive number.
    """

    def __init__(self, method: SSLMethod, stages: int | str, epochs: float) -> None:
        self.method = method
        if not epochs > 0:
            raise TrainingError(f"frozen_epochs {epochs} must be above 0; give --frozen_stages 0 to freeze nothing.")
        self.epochs = epochs
        self.names = lower_stages(method.encoder, stages)
        self.norms: list[nn.Module] = []
        self.parameters = [one for name, one in method.encoder.named_parameters() if _belongs(name, self.names)]

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer."""
        # only now: with several processes the trainer has put synchronised batch norms into the places of others
        encoders = [child for name, child in self.method.named_children() if name.endswith("encoder")]
        self.norms = [norm for encoder in encoders for norm in _norms(encoder, self.names)]
        engine.add_event_handler(Events.STARTED, self.require_an_end)
        engine.add_event_handler(Events.ITERATION_STARTED, self.set_modes)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.drop_gradients)

    def frozen(self, engine: PretrainingTrainer) -> bool:
        """Whether the stages stand still in the current step."""
        return engine.state.iteration <= self._steps(engine)

    def require_an_end(self, engine: PretrainingTrainer) -> None:
        """Refuse a run that ends before its encoder has learnt.

        Raises:
            TrainingError: when the stages would stand still all the time.
        """
        epochs, length = engine.state.max_epochs or 1, engine.state.epoch_length or 1
        if self._steps(engine) >= epochs * length:
            raise TrainingError(
                f"frozen_epochs {self.epochs:g} freezes the stages for the whole run ({epochs} epochs of {length} "
                "steps); give fewer --frozen_epochs (a fraction is possible) or more --epochs."
            )

    def _steps(self, engine: PretrainingTrainer) -> int:
        return math.ceil(self.epochs * (engine.state.epoch_length or 1) - 1e-6)  # 0.1 x 30 is 3.0000000000000004

    def set_modes(self, engine: PretrainingTrainer) -> None:
        """Let the batch norms use what they have seen before; in every step, since evaluations set all modes anew."""
        for norm in self.norms:
            norm.train(not self.frozen(engine))

    def drop_gradients(self, engine: PretrainingTrainer) -> None:
        """Let the optimizer pass over the parameters."""
        if self.frozen(engine):
            for parameter in self.parameters:
                parameter.grad = None


def lower_stages(encoder: nn.Module, stages: int | str) -> tuple[str, ...]:
    """The names of an encoder's entrance and of its lowest stages or blocks.

    Args:
        encoder: a ResNet or ViT of timm.
        stages: how many, or "all".

    Raises:
        TrainingError: when the encoder does not have so many.
    """
    blocks = getattr(encoder, "blocks", None)
    most = 4 if blocks is None else len(blocks)
    count = most if stages == "all" else stages
    if not isinstance(count, int) or not 0 < count <= most:
        raise TrainingError(f"frozen_stages {stages!r} is none of this encoder's: choose 1 to {most}, or all.")
    if blocks is None:
        return (*_RESNET_ENTRANCE, *(f"layer{number}" for number in range(1, count + 1)))
    return (*_VIT_ENTRANCE, *(f"blocks.{number}" for number in range(count)))


def _belongs(name: str, stages: tuple[str, ...]) -> bool:
    return any(name == stage or name.startswith(f"{stage}.") for stage in stages)


def _norms(encoder: nn.Module, stages: tuple[str, ...]) -> Iterator[nn.Module]:
    """The batch norms, of whatever class."""
    for name, module in encoder.named_modules():
        if _belongs(name, stages) and hasattr(module, "running_mean"):
            yield module
