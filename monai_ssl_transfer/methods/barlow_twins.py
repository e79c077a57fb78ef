"""Barlow Twins: each output agrees with itself between two views and with no other output."""

from __future__ import annotations

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn

from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod, check_views, full_precision
from monai_ssl_transfer.methods.distributed import gather_with_gradient


class BarlowTwins(SSLMethod):
    """Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230, equation 1): redundancy reduction, no negatives.

    The loss is the paper's sum, not a multiple of it. The authors' first code multiplied it by 0.024; under LARS that
    changes only the learning rate of biases and norms, which the overlay multiplies by 0.024 (0.0048 / 0.2) instead,
    as their last code does. There the gradient is also divided by the number of processes; here it is not.

    Args:
        encoder: the encoder to pretrain.
        hidden_dim: width of the projection head's two hidden layers.
        output_dim: number of outputs D that are correlated.
        redundancy: weight lambda of the off-diagonal correlations.
    """

    def __init__(self, encoder: nn.Module, hidden_dim: int = 8192, output_dim: int = 8192, redundancy: float = 0.0051):
        super().__init__(encoder)
        # Not lightly's head, whose last layer has a bias; the normalisation that follows would remove it.
        self.projection_head = ProjectionHead(
            [
                (encoder.num_features, hidden_dim, nn.BatchNorm1d(hidden_dim), nn.ReLU()),
                (hidden_dim, hidden_dim, nn.BatchNorm1d(hidden_dim), nn.ReLU()),
                (hidden_dim, output_dim, None, None, False),
            ]
        )
        self.output_dim = output_dim
        self.criterion = BarlowTwinsLoss(lambda_param=redundancy)

    def extra_repr(self) -> str:
        """What a run is recognised by when it is resumed."""
        return f"redundancy={self.criterion.lambda_param}"

    @property
    def collapsed_loss(self) -> float:
        """D: constant outputs have no correlation, not even with themselves."""
        return float(self.output_dim)

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """See `SSLMethod.represent`; batch norm sees each view by itself, as in the authors' code."""
        check_views("BarlowTwins", "barlow_twins", views, minimum=2, maximum=2)
        embeddings = [self.encoder(view) for view in views]
        first, second = (self.projection_head(embedding).float() for embedding in embeddings)
        return {"first": first, "second": second, "embedding": embeddings[0].detach()}

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """The loss of the correlations over the images of all processes.

        lightly's loss can average the correlations of the processes, but normalises the images of each by themselves,
        and had wrong gradients with it (its issue 1977): here it gets all images and knows of no processes.
        """
        with full_precision(representations["first"].device):
            first, second = (gather_with_gradient(representations[name]) for name in ("first", "second"))
            return {"loss": self.criterion(first, second)}
