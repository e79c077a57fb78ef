"""MoCo v3: each view predicts the momentum encoder's key of the other one among all keys of the batch."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from lightly.models.modules.heads import ProjectionHead
from lightly.utils import dist
from timm.models import named_apply
from timm.models.vision_transformer import init_weights_vit_moco
from torch import Tensor, nn

from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod, check_views, full_precision
from monai_ssl_transfer.methods.distributed import gather_detached
from monai_ssl_transfer.methods.momentum import cosine_to_one, follow, momentum_copy
from monai_ssl_transfer.networks.encoders import is_loaded
from monai_ssl_transfer.networks.frozen_inputs import fix_position_embedding, freeze_patch_projection


class MoCoV3(SSLMethod):
    """MoCo v3 (Chen et al. 2021, arXiv 2104.02057, algorithm 1): symmetrised InfoNCE without a queue.

    The encoder decides, as in the authors' code: a ViT gets a projection head of three layers and a predictor that
    ends in batch norm, its patch projection is frozen (section 4.2), its position embedding is the fixed
    two-dimensional sine-cosine one, and its linear layers are drawn as theirs: uniformly within
    sqrt(6 / (inputs + outputs)), queries, keys and values each for themselves, biases 0. A ResNet gets a projection
    head of two layers and a predictor without that norm. A ViT that came from a file keeps its weights; its patch
    projection and position embedding are frozen.

    Args:
        encoder: the encoder to pretrain.
        temperature: divisor of the cosine similarities; the authors' are 1.0 for ResNets and 0.2 for ViTs.
        momentum: of the momentum encoder at the start; rises to 1 along a cosine.
        hidden_dim: width of the hidden layers of both heads.
        output_dim: length of the vectors that are compared.
    """

    def __init__(
        self,
        encoder: nn.Module,
        temperature: float = 1.0,
        momentum: float = 0.99,
        hidden_dim: int = 4096,
        output_dim: int = 256,
    ):
        super().__init__(encoder)
        self.temperature = temperature
        self.momentum = momentum
        vit = getattr(encoder, "pos_embed", None) is not None
        if vit:
            if not is_loaded(encoder):
                named_apply(init_weights_vit_moco, encoder)
            fix_position_embedding(encoder)
            freeze_patch_projection(encoder)
        width: Any = encoder.num_features
        self.projection_head = _head([width, *[hidden_dim] * (2 if vit else 1), output_dim])
        self.predictor = _head([output_dim, hidden_dim, output_dim], last_norm=vit)
        self.momentum_encoder = momentum_copy(encoder)
        self.momentum_projection_head = momentum_copy(self.projection_head)
        self.images_compared = 0

    def extra_repr(self) -> str:
        """What a run is recognised by when it is resumed."""
        return f"temperature={self.temperature}, momentum={self.momentum}"

    @property
    def collapsed_loss(self) -> float | None:
        """4 T ln N for the N images of the last batch: two losses, each 2 T times that of N equal keys."""
        return 4 * self.temperature * math.log(self.images_compared) if self.images_compared else None

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """See `SSLMethod.represent`; batch norm sees each view by itself, as in the authors' code."""
        check_views("MoCoV3", "moco_v3", views, minimum=2, maximum=2)
        embeddings = [self.encoder(view) for view in views]
        queries = [self.predictor(self.projection_head(embedding)) for embedding in embeddings]
        with torch.no_grad():
            answers = [self.momentum_projection_head(self.momentum_encoder(view)) for view in views]
        return {
            "query": torch.stack(queries, dim=1).float(),
            "key": torch.stack(answers, dim=1).float(),
            "embedding": embeddings[0].detach(),
        }

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """2 T times the InfoNCE of each view's queries with the other view's keys, those of all processes."""
        with full_precision(representations["query"].device):
            queries = nn.functional.normalize(representations["query"], dim=2)
            keys = gather_detached(nn.functional.normalize(representations["key"], dim=2))
            self.images_compared = len(keys)
            own = dist.rank() * len(queries) + torch.arange(len(queries), device=queries.device)
            losses = [
                nn.functional.cross_entropy(queries[:, view] @ keys[:, 1 - view].T / self.temperature, own)
                for view in (0, 1)
            ]
            loss = 2 * self.temperature * (losses[0] + losses[1])
        return {"loss": loss, "momentum": torch.tensor(cosine_to_one(self.momentum, progress))}

    def after_step(self, progress: float) -> None:
        """Move the momentum encoder and its head."""
        momentum = cosine_to_one(self.momentum, progress)
        follow(self.encoder, self.momentum_encoder, momentum)
        follow(self.projection_head, self.momentum_projection_head, momentum)


def _head(widths: list[int], last_norm: bool = True) -> ProjectionHead:
    """Linear layers without biases, batch norm and ReLU between them; a last batch norm has no parameters.

    lightly's own head for MoCo v3 gives the last norm a gain and a shift, which the authors' code does not.
    """
    hidden = [(a, b, nn.BatchNorm1d(b), nn.ReLU(), False) for a, b in pairwise(widths[:-1])]
    norm = nn.BatchNorm1d(widths[-1], affine=False) if last_norm else None
    return ProjectionHead([*hidden, (widths[-2], widths[-1], norm, None, False)])
