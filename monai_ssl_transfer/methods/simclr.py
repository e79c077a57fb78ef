"""SimCLR: two views of one image attract each other, all other images of the batch repel."""

from __future__ import annotations

import math
from typing import Any

from lightly.loss import NTXentLoss
from lightly.models.modules.heads import ProjectionHead, SimCLRProjectionHead
from torch import Tensor, nn

from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod, check_views, encode_by_size, full_precision
from monai_ssl_transfer.methods.distributed import gather_with_gradient


class SimCLR(SSLMethod):
    """SimCLR (Chen et al. 2020, arXiv 2002.05709); with three layers, the projection head of v2 (arXiv 2006.10029).

    The loss is NT-Xent (equation 1) over the views of all processes. Its quality falls with small batches: 256 or
    more is usual, below 64 prefer MoCo.

    RadNet's variant (Jonske et al. 2025, CMPB 261:108634) has a head of its own, without batch norm and biases and with
    a sigmoid; use it with `output_dim=256, temperature=0.5`.

    Args:
        encoder: the encoder to pretrain.
        hidden_dim: width of the projection head.
        output_dim: length of the vectors that are compared.
        temperature: divisor of the cosine similarities; 0.5 (v1, long training), 0.1 to 0.2 for short or small runs.
        layers: layers of the projection head: 2 (v1) or 3 (v2, whose fine-tuning may begin after the first of them).
        radnet_head: RadNet's projection head; it has three layers whatever `layers` says.
    """

    def __init__(
        self,
        encoder: nn.Module,
        hidden_dim: int = 2048,
        output_dim: int = 128,
        temperature: float = 0.2,
        layers: int = 2,
        radnet_head: bool = False,
    ):
        super().__init__(encoder)
        width: Any = encoder.num_features
        if radnet_head:
            self.projection_head: ProjectionHead = _radnet_head(width, hidden_dim, output_dim)
        else:
            self.projection_head = SimCLRProjectionHead(width, hidden_dim, output_dim, num_layers=layers)
        self.criterion = NTXentLoss(temperature=temperature)
        self.images_compared = 0

    def extra_repr(self) -> str:
        """What a run is recognised by when it is resumed."""
        return f"temperature={self.criterion.temperature}"

    @property
    def continued_head(self) -> nn.Sequential | None:
        """The first of three layers with its batch norm and ReLU (arXiv 2006.10029, section 2)."""
        layers = self.projection_head.layers
        return layers[:3] if isinstance(self.projection_head, SimCLRProjectionHead) and len(layers) > 5 else None

    @property
    def collapsed_loss(self) -> float | None:
        """ln(2B - 1) for the B images of the last batch: each view is compared with 2B - 1 equal ones."""
        return math.log(2 * self.images_compared - 1) if self.images_compared else None

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """See `SSLMethod.represent`."""
        check_views("SimCLR", "simclr", views, minimum=2, maximum=2)
        embeddings = encode_by_size(self.encoder, views)
        first, second = self.projection_head(embeddings).float().chunk(2)
        return {"first": first, "second": second, "embedding": embeddings[: len(views[0])].detach()}

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """NT-Xent over the views of all processes."""
        with full_precision(representations["first"].device):
            first, second = (gather_with_gradient(representations[name]) for name in ("first", "second"))
            self.images_compared = len(first)
            return {"loss": self.criterion(first, second)}


def _radnet_head(width: int, hidden_dim: int, output_dim: int) -> ProjectionHead:
    return ProjectionHead(
        [
            (width, hidden_dim, None, nn.ReLU(), False),
            (hidden_dim, hidden_dim, None, nn.Sigmoid(), False),
            (hidden_dim, output_dim, None, None, False),
        ]
    )
