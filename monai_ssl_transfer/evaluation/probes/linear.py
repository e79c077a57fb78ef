"""Linear probe: many linear layers trained side by side on frozen embeddings, the best chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.protocol import (
    ProbeOutcome,
    best,
    check_task,
    score_name,
    validation_score,
)
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors, joined

DINOV2_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
_ROWS = 4096  # embeddings that are judged at once


@dataclass(frozen=True)
class _Input:
    """What a head sees of a ViT; nothing is given for a ResNet, whose embedding is the only choice."""

    last_blocks: int | None = None
    average_patches: bool | None = None

    def of(self, data: LabelledVectors, rows: Tensor) -> Tensor:
        """(B, D) features of some rows."""
        if self.last_blocks is None or data.blocks is None:
            return data.vectors[rows]
        blocks = data.blocks[rows]
        tokens = blocks[:, : self.last_blocks, 0].flatten(1)
        return torch.cat([tokens, blocks[:, 0, 1]], dim=1) if self.average_patches else tokens

    def settings(self) -> dict[str, Any]:
        named = {"last_blocks": self.last_blocks, "average_patches": self.average_patches}
        return {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class LinearProbe:
    """DINOv2's linear evaluation (Oquab et al. 2024, appendix B.3) on embeddings that are computed once.

    A head for every learning rate x last blocks x pooling is trained on the same batches by SGD with momentum and a
    cosine schedule to zero; the gradients of all heads of one input are one matrix product. The class tokens of the
    last blocks are put side by side, with the mean of the last block's patch tokens if wanted; an encoder without
    blocks (ResNet) has its embedding alone. Other than DINOv2, whose images are cropped and flipped anew in every
    epoch, every image has one embedding.

    Args:
        rates: learning rates for a batch of 256; each is scaled by batch / 256.
        last_blocks: how many of the last blocks.
        average_patches: with or without the mean of the patch tokens.
        epochs: passes over the training cases (100 in DINO), but
        iterations: never more than so many batches (12,500 in DINOv2).
        batch_size: cases per batch; smaller where there are fewer.
        momentum: of SGD.
        weight_decay: 0 in DINO and DINOv2.
        initial_sd: of the weights before training; biases start at 0.
        refit: train the chosen head again on training and validation cases together.
    """

    rates: tuple[float, ...] = DINOV2_RATES
    last_blocks: tuple[int, ...] = (1, 4)
    average_patches: tuple[bool, ...] = (False, True)
    epochs: int = 100
    iterations: int = 12_500
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 0.0
    initial_sd: float = 0.01
    refit: bool = False
    name: str = "linear"

    def predict(
        self, train: LabelledVectors, validation: LabelledVectors, test: LabelledVectors, seed: int
    ) -> ProbeOutcome:
        """Train all heads, choose, predict; see `protocol.Probe`.

        Raises:
            DataError: sets of different tasks, no validation cases to choose on, or fewer blocks than asked for.
        """
        check_task(train, validation, test, multilabel=None, probe=self.name)
        heads = self._trained(train, seed)
        tried: list[dict[str, Any]] = []
        if len(heads) * len(self.rates) > 1:
            if len(validation) == 0:
                raise DataError("The linear probe cannot choose without validation cases: give one setting of each.")
            tried = [one for head in heads for one in self._tried(head, validation)]
        chosen = best(tried) if tried else {"learning_rate": self.rates[0], **heads[0].input.settings()}
        used = train
        if self.refit and len(validation):
            used = joined(train, validation)
            heads = self._only(chosen)._trained(used, seed)
        head = next(one for one in heads if one.input.settings().items() <= chosen.items())
        number = head.rates.index(chosen["learning_rate"])
        probabilities = head.probabilities(test)[number]
        batch, steps = self._length(len(used))
        length = {"batch_size": batch, "iterations": steps, "training_cases": len(used)}
        return ProbeOutcome(probabilities, {**chosen, **length}, tried)

    def _only(self, chosen: dict[str, Any]) -> LinearProbe:
        blocks, pooled = chosen.get("last_blocks"), chosen.get("average_patches")
        return replace(
            self,
            rates=(chosen["learning_rate"],),
            last_blocks=self.last_blocks if blocks is None else (blocks,),
            average_patches=self.average_patches if pooled is None else (pooled,),
        )

    def _inputs(self, data: LabelledVectors) -> list[_Input]:
        if data.blocks is None:
            return [_Input()]
        if max(self.last_blocks) > data.blocks.shape[1]:
            raise DataError(
                f"The embeddings hold {data.blocks.shape[1]} last blocks and the linear probe asks for "
                f"{max(self.last_blocks)}: give last_blocks of {data.blocks.shape[1]} at most."
            )
        return [_Input(blocks, pooled) for blocks in self.last_blocks for pooled in self.average_patches]

    def _length(self, cases: int) -> tuple[int, int]:
        """Batch size and number of batches."""
        batch = min(self.batch_size, cases)
        return batch, max(1, min(self.iterations, self.epochs * (cases // batch)))

    def _trained(self, train: LabelledVectors, seed: int) -> list[_Heads]:
        generator = torch.Generator().manual_seed(seed)
        heads = [_Heads(one, self, train, generator) for one in self._inputs(train)]
        batch, steps = self._length(len(train))
        for step, rows in enumerate(_batches(len(train), batch, steps, generator)):
            share = batch / 256 * 0.5 * (1 + math.cos(math.pi * step / steps))
            for head in heads:
                head.step(train, rows, share)
        return heads

    def _tried(self, head: _Heads, validation: LabelledVectors) -> list[dict[str, Any]]:
        settings = head.input.settings()
        found = []
        for rate, shares in zip(head.rates, head.probabilities(validation), strict=True):
            # a rate that was too high for these embeddings has no score
            score = validation_score(shares, validation)
            found.append({"learning_rate": rate, **settings, "metric": score_name(validation), "score": score})
        return found


class _Heads:
    """The linear layers of one input, one per learning rate, as the columns of one matrix."""

    def __init__(self, seen: _Input, probe: LinearProbe, train: LabelledVectors, generator: torch.Generator) -> None:
        self.input = seen
        self.rates = probe.rates
        self.momentum = probe.momentum
        self.weight_decay = probe.weight_decay
        self.classes = len(train.class_names)
        columns = len(probe.rates) * self.classes
        width = seen.of(train, torch.zeros(1, dtype=torch.int64)).shape[1]
        self.weight = torch.empty(width, columns).normal_(0, probe.initial_sd, generator=generator)
        self.bias = torch.zeros(columns)
        self.weight_velocity = torch.zeros_like(self.weight)
        self.bias_velocity = torch.zeros_like(self.bias)
        self.rate = torch.tensor(probe.rates).repeat_interleave(self.classes)

    def step(self, train: LabelledVectors, rows: Tensor, share: float) -> None:
        """One step of SGD of every head, at this share of its learning rate."""
        x, targets = self.input.of(train, rows), train.targets[rows]
        logits = torch.addmm(self.bias, x, self.weight).view(len(x), len(self.rates), self.classes)
        if train.multilabel:  # of the mean binary cross-entropy
            slope = (logits.sigmoid() - targets[:, None]) / targets.numel()
        else:  # of the mean cross-entropy
            slope = logits.softmax(dim=2)
            slope[torch.arange(len(x)), :, targets] -= 1
            slope /= len(x)
        flat = slope.flatten(1)
        for value, velocity, gradient in (
            (self.weight, self.weight_velocity, x.T @ flat),
            (self.bias, self.bias_velocity, flat.sum(dim=0)),
        ):
            velocity.mul_(self.momentum).add_(gradient).add_(value, alpha=self.weight_decay)
            value.sub_(velocity * (share * self.rate))

    def probabilities(self, data: LabelledVectors) -> Tensor:
        """(R, N, C) for every learning rate."""
        found = []
        for rows in torch.arange(len(data)).split(_ROWS):
            logits = torch.addmm(self.bias, self.input.of(data, rows), self.weight)
            logits = logits.view(len(rows), len(self.rates), self.classes).transpose(0, 1)
            found.append(logits.sigmoid() if data.multilabel else logits.softmax(dim=2))
        return torch.cat(found, dim=1)


def _batches(cases: int, batch: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of every batch: a new order in every epoch, the incomplete last batch left out."""
    per_epoch = cases // batch
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(cases, generator=generator)
        start = step % per_epoch * batch
        yield order[start : start + batch]
