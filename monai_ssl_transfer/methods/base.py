"""The protocol that every self-supervised method follows, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from monai_ssl_transfer.errors import TrainingError


@dataclass(frozen=True)
class SampleKeys:
    """What each image of a batch may draw its random numbers from, so that no batch, rank or chunk changes them.

    Args:
        seed: seed of the run.
        epoch: epoch number from 0.
        sample: `(B,)` int64, each image's number in its data set.
    """

    seed: int
    epoch: int
    sample: Tensor

    def part(self, place: slice) -> SampleKeys:
        """The keys of some of the images."""
        return replace(self, sample=self.sample[place])


class SSLMethod(nn.Module):
    """A self-supervised method: views in, loss out; all that changes between two steps is in its `state_dict`.

    A method has two halves. `represent` is heavy and treats every image by itself (but for batch norm): it runs the
    networks. `compare` is light and has no trained parameters: it computes the loss from what `represent` gave for
    all images, those of the other processes included. A batch that does not fit into memory can so be represented in
    parts and still be compared as a whole (Gao et al. 2021, arXiv 2101.06983).

    The trainer calls, per step, `forward(views, progress, keys)`, then `before_step(progress)`, the optimizer on
    `parameter_groups(method)`, then `after_step(progress)`. `progress` runs from 0 (first step) to 1 (end of training)
    and drives every schedule of the method, so that no schedule has a state of its own.

    Args:
        encoder: the encoder to pretrain; maps `(B, C, H, W)` to `(B, D)` and has `num_features` = D.
    """

    separable: ClassVar[bool] = False
    """Whether the loss of a batch is the mean of the losses of its parts: no image is compared with another one."""
    synchronised_batch_norm: ClassVar[bool] = True
    """Whether batch norm shall see the images of all processes together; MoCo v2 lives on its not doing so."""
    in_one_piece: str = ""
    """The setting, if any, by which `represent` looks at all images of a step: they cannot go through in pieces."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    @property
    def transfer_encoder(self) -> nn.Module:
        """The encoder to save and to judge: the trained one, or its moving average where that is better."""
        return self.encoder

    @property
    def continued_head(self) -> nn.Sequential | None:
        """Layers of the projection head, the first one linear, after which fine-tuning may begin; saved when given."""
        return None

    @property
    def collapsed_loss(self) -> float | None:
        """The loss when all embeddings are equal (None while unknown): a run that stays there has collapsed."""
        return None

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """Run the networks.

        Args:
            views: one tensor `(B, C, s, s)` per view; s may differ between views.
            progress: position in the training, 0 to 1.
            keys: where random numbers come from, for the methods that draw any (masks).

        Returns:
            Tensors whose first dimension is the images' `(B, ...)`, with gradients where the loss wants them; among
            them "embedding" `(B, D)`, detached: the encoder's output for view 0.
        """
        raise NotImplementedError

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Compute the loss over all images of this and the other processes.

        Args:
            representations: as `represent` returns them.
            progress: position in the training, 0 to 1.

        Returns:
            "loss" (scalar with gradient) and further detached scalars worth logging. With several processes the mean
            of their losses is that of one process with all images, and so is the mean of their gradients.
        """
        raise NotImplementedError

    def forward(
        self,
        views: list[Tensor],
        progress: float,
        keys: SampleKeys | None = None,
        gradients: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Represent and compare.

        Args:
            views: as for `represent`.
            progress: as for `represent`.
            keys: as for `represent`.
            gradients: of the loss with respect to representations that were compared before; "loss" then is the
                scalar whose gradient continues them into the networks, and nothing is compared again.

        Returns:
            What `compare` returns, and "embedding".
        """
        representations = self.represent(views, progress, keys)
        if gradients is not None:
            products = [(representations[name].float() * gradient).sum() for name, gradient in gradients.items()]
            return {"loss": torch.stack(products).sum()}
        return {**self.compare(representations, progress), "embedding": representations["embedding"]}

    def before_step(self, progress: float) -> None:
        """Do what follows the backward pass and comes before the optimizer, such as dropping gradients.

        Args:
            progress: as for `represent`.
        """

    def after_step(self, progress: float) -> None:
        """Do what follows an optimizer step, such as moving the momentum encoder.

        Args:
            progress: position in the training of the step that was made, 0 to 1.
        """


def chosen_optimizer(optimizers: dict[str, Optimizer], name: str) -> Optimizer:
    """The one optimizer of a configuration's several that was built.

    Args:
        optimizers: by name; those that were not asked for are not among them.
        name: of the one that was asked for.

    Raises:
        TrainingError: for an unknown name.
    """
    if name not in optimizers:
        raise TrainingError(f"--optimizer_name {name} is unknown: choose adamw, lars or sgd.")
    return optimizers[name]


def check_views(method: str, recipe: str, views: Sequence[Tensor], minimum: int, maximum: int | None = None) -> None:
    """Refuse a recipe with the wrong number of views, or a batch too small to contrast anything.

    Args:
        method: name for the message.
        recipe: name of the right recipe in `views.recipes`, a value of `recipe_name`.
        views: the views of a batch, `(B, C, s, s)` each.
        minimum: fewest views.
        maximum: most views, or any number.

    Raises:
        TrainingError: with the remedy.
    """
    if len(views) < minimum or (maximum is not None and len(views) > maximum):
        wanted = f"{minimum}" if maximum == minimum else f"at least {minimum}"
        raise TrainingError(
            f"{method} needs {wanted} views per image but the recipe makes {len(views)}: "
            f"choose the views of the method, --recipe_name {recipe}."
        )
    if len(views[0]) < 2:
        raise TrainingError(f"{method} needs at least 2 images per batch: raise the batch size or drop the last batch.")


def encode_by_size(network: Callable[[Tensor], Tensor], views: Sequence[Tensor]) -> Tensor:
    """Run views through a network in as few passes as there are sizes, and return the outputs in the views' order.

    Batch norm sees all views of one size together, as in the reference code of SimCLR and DINO.

    Args:
        network: maps `(N, C, s, s)` to `(N, D)`.
        views: tensors `(B, C, s, s)`.

    Returns:
        `(len(views) * B, D)`: view 0 of all images, then view 1, and so on.
    """
    outputs: list[Tensor | None] = [None] * len(views)
    for size in dict.fromkeys(view.shape[-2:] for view in views):
        members = [i for i, view in enumerate(views) if view.shape[-2:] == size]
        encoded = network(torch.cat([views[i] for i in members]))
        for i, chunk in zip(members, encoded.chunk(len(members)), strict=True):
            outputs[i] = chunk
    return torch.cat([output for output in outputs if output is not None])


def full_precision(device: torch.device) -> torch.autocast:
    """Context in which a loss is computed in float32 whatever the precision of the networks: exp and log need it."""
    return torch.autocast(device.type, enabled=False)
