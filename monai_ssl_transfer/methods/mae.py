"""MAE: a quarter of the patches goes through the encoder, and a small decoder paints the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import fold, mse_loss, unfold

from monai_ssl_transfer.errors import TrainingError
from monai_ssl_transfer.methods.base import SampleKeys, SSLMethod, check_views, full_precision
from monai_ssl_transfer.methods.masks import require_keys, shuffled_patches
from monai_ssl_transfer.methods.tokens import embed_patches, patch_grid, require_vit, through_blocks
from monai_ssl_transfer.networks.frozen_inputs import fix_position_embedding, sine_cosine_positions

EPSILON = 1e-6
"""Added to a patch's variance before the division, as in the authors' code."""


@dataclass(frozen=True)
class MAEDecoderOptions:
    """Shape of the decoder, which is thrown away after pretraining.

    Args:
        width: of its tokens, a multiple of 4 and of `heads`.
        depth: blocks; 1 is enough for fine-tuning, a linear probe wants 8 (table 1a of the paper).
        heads: of attention.
    """

    width: int = 512
    depth: int = 8
    heads: int = 16


class MAEDecoder(nn.Module):
    """Predicts the pixels of hidden patches from the encoder's tokens of the visible ones.

    lightly's MAEDecoderTIMM leaves with lightly 1.7; its successor wants square views of one size.

    Args:
        features: width of the encoder's tokens.
        pixels: values in a patch.
        options: shape.
    """

    def __init__(self, features: int, pixels: int, options: MAEDecoderOptions):
        super().__init__()
        width = options.width
        self.embed = nn.Linear(features, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*[Block(width, options.heads, qkv_bias=True) for _ in range(options.depth)])
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.predict = nn.Linear(width, pixels)
        nn.init.normal_(self.mask_token, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, order: Tensor, grid: tuple[int, int], visible: int) -> Tensor:
        """Predict the hidden patches.

        Args:
            tokens: `(B, P + visible, D)`: class and register tokens, then the visible patches.
            order: `(B, N)`, the places of all patches: first those of the visible ones, then those of the hidden ones.
            grid: rows and columns of patches.
            visible: number of visible patches.

        Returns:
            `(B, N - visible, pixels)` in the order of the hidden places.
        """
        x = self.embed(tokens)
        positions = sine_cosine_positions(*grid, x.shape[2]).to(x)[order]
        # Tokens stay in the order in which they come: attention does not care, each one carries its position.
        prefix, known = x[:, :-visible], x[:, -visible:] + positions[:, :visible]
        unknown = self.mask_token.to(x.dtype) + positions[:, visible:]
        x = self.norm(self.blocks(torch.cat([prefix, known, unknown], dim=1)))
        return self.predict(x[:, -unknown.shape[1] :])


class MAE(SSLMethod):
    """Masked autoencoder (He et al. 2021, arXiv 2111.06377) for ViTs: one view per image.

    The encoder runs on the class token and the visible patches alone, which is where the speed is. Positions are fixed
    sines and cosines in both halves; a pretrained encoder keeps those that it has, and its weights: unlike the
    authors' code, nothing in the encoder is drawn anew. A batch may go through in pieces.

    Args:
        encoder: the ViT to pretrain, a timm VisionTransformer with a class token; its position embedding is fixed.
        mask_ratio: share of the patches that are hidden.
        decoder: shape of the decoder.
        normalised_target: whether each patch is predicted less its mean and over its standard deviation, which is the
            better way to good embeddings; a patch of one colour is 0 everywhere.
    """

    separable: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        mask_ratio: float = 0.75,
        decoder: MAEDecoderOptions | None = None,
        normalised_target: bool = True,
    ):
        vit = require_vit("MAE", encoder)
        if not 0 < mask_ratio < 1:
            raise TrainingError(f"mask_ratio {mask_ratio} of MAE must lie between 0 and 1: 0.75 is usual.")
        super().__init__(encoder)
        fix_position_embedding(encoder)
        self.patch = tuple(vit.patch_embed.patch_size)
        self.mask_ratio = mask_ratio
        self.normalised_target = normalised_target
        pixels = vit.patch_embed.proj.in_channels * self.patch[0] * self.patch[1]
        self.decoder = MAEDecoder(vit.embed_dim, pixels, decoder or MAEDecoderOptions())

    def extra_repr(self) -> str:
        """What a run is recognised by when it is resumed."""
        return f"mask_ratio={self.mask_ratio}, normalised_target={self.normalised_target}"

    def represent(self, views: list[Tensor], progress: float, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """See `SSLMethod.represent`; "embedding" is the mean of the visible patches' tokens."""
        check_views("MAE", "mae", views, minimum=1, maximum=1)
        order, visible = self._order(views[0], require_keys("MAE", keys))
        latent = self._encode(views[0], order[:, :visible])
        patches, _, _ = self._patches(views[0])
        return {
            "prediction": self.decoder(latent, order, patch_grid(self.encoder, views[0]), visible).float(),
            "target": _at(patches, order[:, visible:]),
            "embedding": latent[:, -visible:].mean(dim=1).detach(),
        }

    def compare(self, representations: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Mean squared error over the hidden patches."""
        with full_precision(representations["target"].device):
            return {"loss": mse_loss(representations["prediction"], representations["target"])}

    @torch.no_grad()
    def reconstruct(self, view: Tensor, keys: SampleKeys) -> Tensor:
        """What MAE paints over the hidden patches, with the visible ones as they are.

        With a normalised target the mean and the contrast of each hidden patch are not predicted: they are the true
        ones, as in the authors' pictures. What to look at is the structure within the patches.

        Args:
            view: `(B, C, H, W)`.
            keys: choose the hidden patches.

        Returns:
            `(B, C, H, W)` in the units of the view.
        """
        order, visible = self._order(view, keys)
        latent = self._encode(view, order[:, :visible])
        painted = self.decoder(latent, order, patch_grid(self.encoder, view), visible).float()
        patches, mean, deviation = self._patches(view)
        hidden = order[:, visible:, None].expand_as(painted)
        pixels = (patches.scatter(1, hidden, painted) * deviation + mean).transpose(1, 2)
        return fold(pixels, view.shape[-2:], self.patch, stride=self.patch)

    def _order(self, view: Tensor, keys: SampleKeys) -> tuple[Tensor, int]:
        """Order of the patches `(B, N)`, and how many at its beginning are visible."""
        rows, columns = patch_grid(self.encoder, view)
        visible = int(rows * columns * (1 - self.mask_ratio))
        if visible < 1:
            raise TrainingError(
                f"Of {rows} x {columns} patches MAE would show none: raise --image_size or lower mask_ratio."
            )
        return shuffled_patches(keys, rows * columns).to(view.device), visible

    def _encode(self, view: Tensor, visible: Tensor) -> Tensor:
        """Normalised tokens: those of class and registers, then those of the visible patches."""
        tokens = embed_patches(self.encoder, view)
        prefix = self.encoder.num_prefix_tokens
        return through_blocks(self.encoder, torch.cat([tokens[:, :prefix], _at(tokens[:, prefix:], visible)], dim=1))

    def _patches(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches as they are to be predicted `(B, N, pixels)`, and their mean and deviation `(B, N, 1)`."""
        patches = unfold(view.float(), self.patch, stride=self.patch).transpose(1, 2)
        mean, deviation = torch.zeros_like(patches[..., :1]), torch.ones_like(patches[..., :1])
        if self.normalised_target:
            mean, deviation = patches.mean(2, keepdim=True), (patches.var(2, keepdim=True) + EPSILON).sqrt()
        return (patches - mean) / deviation, mean, deviation


def _at(tokens: Tensor, places: Tensor) -> Tensor:
    """Of `(B, N, D)` the tokens at the places `(B, V)`."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))
