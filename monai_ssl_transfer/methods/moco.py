"""MoCo v2: a query is contrasted with its key from a momentum encoder and with a queue of earlier keys."""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import MoCoProjectionHead
from lightly.utils import dist
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod, check_views, full_precision
from monai_ssl_transfer.methods.distributed import encode_interleaved, gather_detached
from monai_ssl_transfer.methods.momentum import follow, momentum_copy
from monai_ssl_transfer.methods.queue import KeyQueue


class MoCoV2(SSLMethod):
    """MoCo v2 (Chen et al. 2020, arXiv 2003.04297), with the InfoNCE loss of MoCo (arXiv 1911.05722, equation 1).

    With little data make the queue smaller than the number of images, or the key that an image left in the last
    epoch will be among its own negatives: a quarter of them is a good start; and let the momentum encoder follow
    faster (0.99), since it has fewer steps to arrive.

    A query meets its own key and the queue, and no other image of its step: the step's keys enter the queue when it is
    done. A batch may so go through the network in pieces without a change to its loss.

    Args:
        encoder: the encoder to pretrain.
        queue_size: keys in the queue.
        momentum: of the momentum encoder, per optimizer step.
        temperature: divisor of the cosine similarities.
        hidden_dim: width of the projection head.
        output_dim: length of the vectors that are compared.
        batch_norm_groups: groups in which batch norm sees a batch, or each piece of it, on a single device; with
            several devices each is a group of its own, for queries and keys, whatever is said here. More than 1 keeps
            batch norm from betraying the positive key, as the authors do in their demonstration on one GPU (there 8);
            it needs at least 2 images per group.
        queue_precision: "fp32", or "fp16" for a queue of half the memory; products are computed in float32 anyway.
    """

    separable: ClassVar[bool] = True
    synchronised_batch_norm: ClassVar[bool] = False

    def __init__(
        self,
        encoder: nn.Module,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        hidden_dim: int = 2048,
        output_dim: int = 128,
        batch_norm_groups: int = 1,
        queue_precision: str = "fp32",
    ):
        super().__init__(encoder)
        self.projection_head = MoCoProjectionHead(encoder.num_features, hidden_dim, output_dim)
        self.momentum_encoder = momentum_copy(encoder)
        self.momentum_projection_head = momentum_copy(self.projection_head)
        self.criterion = NTXentLoss(temperature=temperature)
        self.criterion.memory_bank = KeyQueue(queue_size, output_dim, queue_precision)
        self.momentum = momentum
        self.batch_norm_groups = batch_norm_groups
        self._waiting: list[Tensor] = []
        self._waiting_since: float | None = None

    def extra_repr(self) -> str:
        """What a run is recognised by when it is resumed."""
        queue = f"queue_size={self.queue.size}, queue_precision={self.queue.keys.dtype}"
        # not batch_norm_groups: they follow the pieces and processes, which may be others when a run goes on
        return f"temperature={self.criterion.temperature}, {queue}, momentum={self.momentum}"

    @property
    def queue(self) -> KeyQueue:
        """The queue of keys, which lightly's loss knows as its memory bank."""
        return cast(KeyQueue, self.criterion.memory_bank)

    @property
    def collapsed_loss(self) -> float:
        """ln(K + 1): the positive and K negatives are all equal."""
        return math.log(self.queue.size + 1)

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """See `SSLMethod.represent`; view 0 makes the queries, view 1 the keys."""
        check_views("MoCoV2", "moco_v2", views, minimum=2, maximum=2)
        groups = self.batch_norm_groups if dist.world_size() == 1 else 1
        if len(views[0]) < 2 * groups:
            raise TrainingError(
                f"A batch of {len(views[0])} images is too small for {groups} batch-norm groups: "
                "raise --batch_size or lower --batch_norm_groups."
            )
        embeddings = torch.cat([self.encoder(chunk) for chunk in views[0].tensor_split(groups)])
        queries = self.projection_head(embeddings).float()
        with torch.no_grad():
            key_embeddings = encode_interleaved(self.momentum_encoder, views[1], groups)
            answers = self.momentum_projection_head(key_embeddings).float()
        return {"query": queries, "key": answers, "embedding": embeddings.detach()}

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """InfoNCE of each query with its key and the queue."""
        queries, keys = representations["query"], representations["key"]
        with full_precision(queries.device):
            loss = self.criterion(queries, keys)
            if self.training:
                self._remember(nn.functional.normalize(keys.detach(), dim=1), progress)
        return {"loss": loss, "momentum": torch.tensor(self.momentum)}

    def _remember(self, keys: Tensor, progress: float) -> None:
        """Keep the keys of one piece of a step until the step is done; those of a step that was left out are lost."""
        if progress != self._waiting_since:
            self._waiting.clear()
        self._waiting_since = progress
        self._waiting.append(keys)

    def after_step(self, progress: float) -> None:
        """Put the step's keys, those of all processes in rank order, into the queue; move the momentum encoder."""
        if self._waiting:
            self.queue.enqueue(gather_detached(torch.cat(self._waiting)))
            self._waiting.clear()
        follow(self.encoder, self.momentum_encoder, self.momentum)
        follow(self.projection_head, self.momentum_projection_head, self.momentum)
