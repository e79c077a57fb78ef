"""DINO: a student sees many crops and predicts what its own moving average says about the two large ones."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from lightly.models.modules.heads import DINOProjectionHead
from torch import Tensor, nn

from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod, check_views, encode_by_size, full_precision
from monai_ssl_transfer.methods.centre import Centre, between_views, entropy, first_choices, target
from monai_ssl_transfer.methods.momentum import cosine_to_one, follow, momentum_copy

logger = logging.getLogger(__name__)

GLOBAL_VIEWS = 2


@dataclass(frozen=True)
class DINOHeadOptions:
    """Shape of DINO's projection head.

    Args:
        hidden_dim: width of its two hidden layers.
        bottleneck_dim: length of the normalised vector before the prototypes.
        batch_norm: batch norm in the hidden layers; the authors use none.
        learned_lengths: whether the prototypes' lengths are trained, as in DINOv2's code, or stay 1.
    """

    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    batch_norm: bool = False
    learned_lengths: bool = False


@dataclass(frozen=True)
class DINOSchedule:
    """Momentum and temperatures of DINO; fractions are of the whole training.

    Args:
        momentum: of the teacher at the start; rises to 1 along a cosine.
        student_temperature: sharpness of the student's distribution.
        teacher_temperature: sharpness of the teacher's, after the warm-up.
        warmup_temperature: sharpness of the teacher's at the start.
        warmup: fraction of the training over which the teacher's temperature moves linearly.
        freeze_last_layer: fraction during which the prototypes stand still; the authors freeze the first epoch,
            which is 0.01 of 100 epochs.
        centre_momentum: of the moving average of the teacher's outputs.
    """

    momentum: float = 0.996
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    warmup_temperature: float = 0.04
    warmup: float = 0.0
    freeze_last_layer: float = 0.01
    centre_momentum: float = 0.9

    def teacher_temperature_at(self, progress: float) -> float:
        """The teacher's temperature at a position (0 to 1) in the training."""
        share = min(progress / self.warmup, 1.0) if self.warmup > 0 else 1.0
        return self.warmup_temperature + share * (self.teacher_temperature - self.warmup_temperature)


class DINO(SSLMethod):
    """DINO (Caron et al. 2021, arXiv 2104.14294): self-distillation with centring and sharpening, multi-crop.

    The first two views are the global ones, which also the teacher sees; any number of local ones may follow. The
    teacher is the encoder to transfer (`transfer_encoder`).

    A batch may go through in pieces (`separable`): no image is compared with another one, and the centre moves once
    per step by all of them. Only batch norm, in a ResNet, sees each piece by itself.

    With little data (under some 20,000 images) 1,024 prototypes and a teacher that follows faster (momentum 0.99) are
    safer than the authors' values, which are the defaults. If the loss stays at ln(prototypes), lower the teacher's
    temperature; if the teacher's entropy falls to 0, raise it.

    Args:
        encoder: the encoder to pretrain.
        prototypes: output dimensions K of the head.
        schedule: momentum and temperatures.
        head: shape of the head.
    """

    separable: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        prototypes: int = 65536,
        schedule: DINOSchedule | None = None,
        head: DINOHeadOptions | None = None,
    ):
        super().__init__(encoder)
        self.prototypes = prototypes
        self.schedule = schedule or DINOSchedule()
        self.teacher_encoder = momentum_copy(encoder)
        self.projection_head, self.teacher_projection_head = self._heads(prototypes, head or DINOHeadOptions())
        self.centre = Centre(prototypes, self.schedule.centre_momentum)
        self._views_checked = False

    def _heads(self, prototypes: int, options: DINOHeadOptions) -> tuple[DINOProjectionHead, DINOProjectionHead]:
        """The student's head and the teacher's, which starts equal; a head with weight norm cannot be deep-copied."""
        shape = (self.encoder.num_features, options.hidden_dim, options.bottleneck_dim, prototypes)
        student, teacher = (
            DINOProjectionHead(*shape, batch_norm=options.batch_norm, norm_last_layer=not options.learned_lengths)
            for _ in range(2)
        )
        teacher.load_state_dict(student.state_dict())
        return student, teacher.requires_grad_(False)

    def extra_repr(self) -> str:
        """What a run is recognised by when it is resumed."""
        return f"{self.schedule}"

    @property
    def transfer_encoder(self) -> nn.Module:
        """The teacher, which is better than the student throughout the training (section 5.1 of the paper)."""
        return self.teacher_encoder

    @property
    def collapsed_loss(self) -> float | None:
        """ln K: teacher and student are uniform over the prototypes."""
        return math.log(self.prototypes)

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """See `SSLMethod.represent`; the first two views are the global ones and must have one size."""
        self._check_views("DINO", "dino", views)
        embeddings = encode_by_size(self.encoder, views)
        student = self.projection_head(embeddings).float()
        with torch.no_grad():
            teacher = self.teacher_projection_head(encode_by_size(self.teacher_encoder, views[:GLOBAL_VIEWS])).float()
        return {
            "student": by_image(student, len(views)),
            "teacher": by_image(teacher, GLOBAL_VIEWS),
            "embedding": embeddings[: len(views[0])].detach(),
        }

    def _check_views(self, method: str, recipe: str, views: list[Tensor]) -> None:
        """Refuse too few views; say once when all are global, which trains but makes worse embeddings (table 8)."""
        check_views(method, recipe, views, minimum=GLOBAL_VIEWS)
        if len(views) == GLOBAL_VIEWS and not self._views_checked:
            logger.warning("%s sees no local views: --recipe_name %s and --local_views 8 make some.", method, recipe)
        self._views_checked = True

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Cross-entropy of the student's views with the teacher's other view."""
        student, teacher = representations["student"], representations["teacher"]
        temperature = self.schedule.teacher_temperature_at(progress)
        with full_precision(student.device):
            distribution = target(teacher, self.centre.value, temperature)
            loss = between_views(distribution, student, self.schedule.student_temperature).mean()
        if self.training:
            self.centre.collect(teacher.sum((0, 1)), torch.tensor(teacher[..., 0].numel()).to(teacher.device), progress)
        return {
            "loss": loss,
            "teacher_entropy": entropy(distribution[:, 0]),
            "teacher_prototypes": first_choices(distribution[:, 0].argmax(1), self.prototypes),
            "teacher_temperature": torch.tensor(temperature),
            "momentum": torch.tensor(cosine_to_one(self.schedule.momentum, progress)),
        }

    def before_step(self, progress: float) -> None:
        """Let the optimizer pass over the prototypes while they stand still: neither decay nor momentum moves them.

        Their gradients are computed all the same: between processes every parameter must have one in every step.
        """
        if progress < self.schedule.freeze_last_layer:
            for head in self.children():
                if isinstance(head, DINOProjectionHead):
                    for parameter in head.last_layer.parameters():
                        parameter.grad = None

    def after_step(self, progress: float) -> None:
        """Move the teacher and the centre."""
        momentum = cosine_to_one(self.schedule.momentum, progress)
        follow(self.encoder, self.teacher_encoder, momentum)
        follow(self.projection_head, self.teacher_projection_head, momentum)
        self.centre.move()


def by_image(outputs: Tensor, views: int) -> Tensor:
    """`(B, views, K)` from `(views * B, K)`, view after view; not a copy."""
    return outputs.unflatten(0, (views, -1)).transpose(0, 1)
